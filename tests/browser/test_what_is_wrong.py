"""What is not as it was written: it stands at the head of the page while it is so, and no longer; counts are everybody's own."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, expect
from support.admin_page import count, node
from support.shop import ROUTES
from support.standalone import Running

from controller.ports import free_ports

UNREADABLE = "kind: [\n"
REFUSED = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: quoted}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  rules:
  - backendRefs:
    - name: argo-rollouts-stable-service
      port: "80"
"""
DEAD = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: dead}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  hostnames: [dead.example]
  rules:
  - backendRefs:
    - {name: gone-for-long, port: 80, weight: 0}
    - {name: gone-today, port: 80, weight: 1}
    - {name: argo-rollouts-stable-service, port: 80, weight: 1}
"""
STREAMS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: streams}
spec:
  gatewayClassName: fsm-gateway-cls
  listeners: [{name: tcp, protocol: TCP, port: PORT}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: split}
spec:
  parentRefs: [{name: streams}]
  rules:
  - backendRefs:
    - {name: gone-for-long, port: 80, weight: 0}
    - {name: argo-rollouts-stable-service, port: 80, weight: 3}
    - {name: argo-rollouts-canary-service, port: 80, weight: 1}
"""


async def test_faults_come_and_go_at_the_head_of_the_page(page: Page, running: Running) -> None:
    await running.start()
    await page.goto(f"{running.admin}/")
    await expect(page.locator("main .list a")).to_have_count(1)
    heading, entries = page.locator("#problems h2"), page.locator("#problems li")
    await expect(page.locator("#problems")).to_be_hidden()
    await page.evaluate("window.isTheSame = true")

    running.replace("broken.yaml", UNREADABLE)
    await expect(heading).to_have_text("1 thing is not as written")
    await expect(page).to_have_title("(1) FSM Gateway")
    await expect(entries.first).to_contain_text("broken.yaml:2")
    await expect(entries.first).to_contain_text("not YAML")

    running.replace("refused.yaml", REFUSED)
    await expect(heading).to_have_text("2 things are not as written")
    refused = entries.filter(has_text="refused.yaml:9")
    await expect(refused).to_contain_text("HTTPRoute default/quoted")
    await expect(refused.locator("code")).to_have_text("spec.rules[0].backendRefs[0].port")
    await expect(refused).to_contain_text('found "80"; a number is needed')
    await refused.locator("a").click()
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/quoted")
    await expect(page.locator("main .said")).to_contain_text('found "80"; a number is needed')

    running.replace("dead.yaml", DEAD)
    lost = entries.filter(has_text="dead.yaml:9")
    await expect(lost).to_contain_text("HTTPRoute default/dead")
    await expect(lost.locator("code")).to_have_text("spec.rules[0].backendRefs[0].name")
    await expect(lost).to_contain_text('ResolvedRefs=False, BackendNotFound: Service "default/gone-for-long" does not exist.')
    await expect(entries.filter(has_text="dead.yaml:10")).to_contain_text("gone-today")
    await expect(page).to_have_title("(4) FSM Gateway")
    await lost.locator("a").click()
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/dead")

    (running.folder / "broken.yaml").unlink()
    await expect(entries.filter(has_text="broken.yaml")).to_have_count(0)
    running.replace("refused.yaml", REFUSED.replace('"80"', "80"))
    await expect(heading).to_have_text("2 things are not as written")
    (running.folder / "dead.yaml").unlink()
    await expect(page.locator("#problems")).to_be_hidden()
    await expect(page).to_have_title("FSM Gateway")
    assert await page.evaluate("window.isTheSame"), "it was loaded anew"


async def test_a_route_that_is_refused_stands_among_the_routes(page: Page, running: Running) -> None:
    (running.folder / "lost.yaml").write_text(
        ROUTES.replace("name: simple-fsm-gateway", "name: simple-fsm-gateway, sectionName: https")
    )
    await running.start()
    await page.goto(f"{running.admin}/#routes/HTTPRoute+default/shop")
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/shop")
    await expect(page.locator("main .said")).to_contain_text("NoMatchingParent")
    await expect(page.locator("main .graph")).to_have_count(0)


async def test_what_leads_nowhere_is_told_though_no_condition_says_so(page: Page, running: Running) -> None:
    (running.folder / "astray.yaml").write_text(DEAD.replace("name: simple-fsm-gateway", "name: simple-fsm-gatewey"))
    await running.start()
    await page.goto(f"{running.admin}/#routes/HTTPRoute+default/dead")
    words = 'there is no Gateway "default/simple-fsm-gatewey"; did you mean "simple-fsm-gateway"?'
    (entry,) = await page.locator("#problems li").all()
    await expect(entry).to_contain_text("astray.yaml:5")
    await expect(entry.locator("code")).to_have_text("spec.parentRefs[0].name")
    await expect(entry).to_contain_text(words)
    await expect(page.locator("main .said")).to_contain_text(words)
    await page.click("#tabs >> text=Statuses")
    await page.get_by_label("Only what is broken").check()
    row = page.locator("main tbody tr")
    await expect(row).to_have_count(1)
    await expect(row.locator("dt.bad")).to_have_text("leads nowhere")
    await expect(row).to_contain_text(f"spec.parentRefs[0].name: {words}")


async def test_a_dead_backend_shows_its_own_counts(page: Page, running: Running) -> None:
    (running.folder / "dead.yaml").write_text(DEAD)
    await running.start()
    answers = [(await running.get(host="dead.example"))[0] for _ in range(10)]
    assert sorted(answers) == [200] * 5 + [500] * 5
    await page.goto(f"{running.admin}/#routes/HTTPRoute+default/dead")
    await expect(count(page, "default/dead/0 default/gone-today:80")).to_contain_text("5 (5 failed)")
    await expect(count(page, "default/dead/0 default/argo-rollouts-stable-service:80")).to_contain_text("5,")
    await expect(count(page, "default/dead/0 default/gone-for-long:80")).to_have_text("no requests yet")
    await expect(node(page, "backend default/gone-for-long:80")).to_contain_text("0 %")
    async with running.session.get(f"{running.admin}/metrics") as answer:
        metrics = await answer.text()
    assert 'backend="default/gone-today:80"' in metrics


async def test_so_does_each_backend_of_a_stream(page: Page, running: Running) -> None:
    (port,) = free_ports(1)
    (running.folder / "streams.yaml").write_text(
        STREAMS.replace("PORT", str(port - running.port + 80) if port >= running.port else "81")
    )
    await running.start()
    async with running.session.get(f"{running.admin}/snapshot") as answer:
        said = await answer.json()
    at = next(part["port"] for part in said["parts"] if part["name"] == "default/streams/tcp") + said["port_offset"]
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", at)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert await reader.read()
        writer.close()
    await page.goto(f"{running.admin}/#routes/TCPRoute+default/split")
    rule = "TCPRoute/default/split/0"
    await expect(count(page, rule)).to_contain_text("8,")
    await expect(count(page, f"{rule} default/argo-rollouts-stable-service:80 (tcp)")).to_contain_text("6,")
    await expect(count(page, f"{rule} default/argo-rollouts-canary-service:80 (tcp)")).to_contain_text("2,")
    await expect(count(page, f"{rule} default/gone-for-long:80")).to_have_text("no connections yet")


async def test_an_endpoint_that_does_not_answer_stands_aside(page: Page, running: Running) -> None:
    (nobody,) = free_ports(1)
    slices = (running.folder / "endpoints.yaml").read_text()
    first = slices.partition("---")[0]
    (running.folder / "second.yaml").write_text(
        first.replace("stable-service-1", "stable-service-2").replace(first.partition("port: ")[2].split()[0], str(nobody))
    )
    await running.start()
    for _ in range(8):
        assert (await running.get())[0] == 200
    await page.goto(f"{running.admin}/#routes")
    await expect(node(page, "backend default/argo-rollouts-stable-service:80")).to_contain_text(
        f"127.0.0.1:{nobody} stands aside"
    )
    await page.click("#tabs >> text=Backends")
    await expect(page.locator('[data-row="default/argo-rollouts-stable-service:80"]')).to_contain_text(f"127.0.0.1:{nobody}")


async def test_listeners_stand_where_they_can_be_asked(page: Page, running: Running) -> None:
    await running.start()
    await page.goto(f"{running.admin}/#listeners")
    row = page.locator('[data-row="default/simple-fsm-gateway/http"]')
    await expect(row).to_contain_text("port 80 as written")
    address = await row.locator("code").inner_text()
    async with running.session.get(f"{address}/", headers={"Host": "demo.example.com"}) as answer:
        assert answer.status == 200
    await page.goto(f"{running.admin}/#routes")
    await expect(node(page, "listener default/simple-fsm-gateway/http")).to_contain_text(address)
