"""The tree of commands. Commands import what they need when they run, so that `fsm --help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from controller.cli.commands import Commands

app = Commands(
    name="fsm",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="A Kubernetes Gateway API implementation in Python: on a laptop from YAML files, or on a cluster.\n\n"
    "Try `fsm demo`, or `fsm run DIRECTORY --port-offset 8000` with YAML of your own.",
)
gateway = Commands(help="Turn the gateway on a cluster on or off, or look at it.")
app.add_typer(gateway, name="gateway")
app.add_typer(gateway, name="gw", hidden=True)

filtering = Commands(help="Write filters in Python: begin one, test it, try it, measure it.")
app.add_typer(filtering, name="filter")


def _version(asked: bool) -> None:
    if asked:
        from gateway import __version__

        typer.echo(f"fsm {__version__}")
        raise typer.Exit


@app.callback()
def fsm(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version of this command.")
    ] = False,
) -> None:
    """Options of all commands."""


PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A YAML file, or a directory of them.", exists=True)]
PathsArgument = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="YAML files, or directories of them; - for standard input.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


@app.command()
def run(
    path: PathArgument,
    port_offset: Annotated[
        int, typer.Option(min=0, max=65534, metavar="PORTS", help="Added to every listener's port: 8000 makes port 80 be 8080.")
    ] = 0,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="COUNT", help="Processes that serve; one per core by default."),
    ] = None,
    bind: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    admin: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the admin page is; empty for none.")
    ] = "127.0.0.1:9091",
    drain: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Seconds that requests may take to finish at the end.")
    ] = 10.0,
    inline_filters: Annotated[
        bool,
        typer.Option("--inline-filters", help="Run filters in the workers, not in confined processes: faster, and trusted."),
    ] = False,
) -> None:
    """Serve the Gateways in YAML files, and follow the files as they change.

    No cluster is needed. Endpoints come from EndpointSlices (any address), ExternalName Services or XBackends.
    """
    from controller.cli.run import run_files

    run_files(path, port_offset=port_offset, workers=workers, bind=bind, admin=admin, drain=drain, inline=inline_filters)


@app.command()
def validate(paths: PathsArgument, as_json: JsonOption = False) -> None:
    """Check YAML as the API server and the controller would.

    Exits with 1 when something is wrong, with 2 when there is nothing to check.
    """
    from controller.cli.validate import validate_files

    validate_files(paths, as_json=as_json)


@app.command()
def translate(paths: PathsArgument, as_json: JsonOption = False) -> None:
    """Show what YAML means: the parts that data planes get, and the statuses."""
    from controller.cli.validate import translate_files

    translate_files(paths, as_json=as_json)


@app.command()
def status(paths: PathsArgument, as_json: JsonOption = False) -> None:
    """Show the statuses that a cluster would write for the objects in YAML files."""
    from controller.cli.validate import status_files

    status_files(paths, as_json=as_json)


MethodOption = Annotated[str, typer.Option("--request", "-X", metavar="METHOD", help="The method.")]
HeaderOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header, as curl has it."),
]


@app.command()
def explain(
    url: Annotated[str, typer.Argument(metavar="URL", help="For example http://demo.example.com/callme")],
    file: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--file", "-f", metavar="PATH", help="YAML to ask; - for standard input."),
    ] = None,
    admin: Annotated[
        str, typer.Option(metavar="URL", help="Admin address of a data plane to ask, as http://127.0.0.1:9091.")
    ] = "",
    method: MethodOption = "GET",
    header: HeaderOption = None,
    port_offset: Annotated[
        int, typer.Option(min=0, max=65534, metavar="PORTS", help="With --file: that of `fsm run`. A data plane says its own.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say which listener, rule and backend a request gets, and if none, what came nearest and why not.

    Offline on files (-f), or live against a data plane (--admin).
    """
    from controller.cli.explain import explain_request

    explain_request(
        url, paths=file or [], admin=admin, method=method, headers=header or [], port_offset=port_offset, as_json=as_json
    )


FilterArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A filter's .py file.", exists=True, dir_okay=False)]
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config", metavar="FILE", help="What it is configured with: YAML, or a FilterConfig.", exists=True, dir_okay=False
    ),
]


@filtering.command("new")
def filter_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in api-key.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Where to put it.")] = Path(),
) -> None:
    """Write a filter to begin with, and its tests."""
    from controller.cli.filter import new_filter

    new_filter(name, folder)


@filtering.command("test")
def filter_test(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help=".py files, or directories of them.", exists=True)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the test_… functions in filters' own files. Exits with 1 when one fails."""
    from controller.cli.filter import test_filters

    test_filters(paths, config, as_json=as_json)


@filtering.command("run")
def filter_run(
    path: FilterArgument,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="For example http://demo.example.com/orders?id=7")
    ] = "http://example.com/",
    method: MethodOption = "GET",
    header: HeaderOption = None,
    data: Annotated[str, typer.Option("--data", "-d", metavar="TEXT", help="A body.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a request through a filter, and show what a backend gets of it and what the client gets.

    Exits with 1 when the client gets a 5xx.
    """
    from controller.cli.filter import run_filter

    run_filter(path, url, method=method, headers=header or [], body=data, config=config, as_json=as_json)


@filtering.command("bench")
def filter_bench(path: FilterArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Measure what a filter adds to a request, inline and in a process of its own."""
    from controller.cli.filter import bench_filter

    bench_filter(path, config, as_json=as_json)


@app.command()
def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Short pauses between the steps.")] = False,
    rate: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Requests a second.")] = 400,
    port_offset: Annotated[
        int, typer.Option(min=0, max=65455, metavar="PORTS", help="Where to listen: 80 + offset; 0 finds a free one.")
    ] = 0,
    as_json: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Write the summary to a file.")] = None,  # noqa: UP045
) -> None:
    """A canary on this machine: two versions, real traffic, and weights that move 0 → 30 → 60 → 100 %."""
    from controller.cli.demo import run_demo

    run_demo(fast=fast, rate=rate, port_offset=port_offset, output=as_json)


@app.command()
def version(
    client_only: Annotated[bool, typer.Option("--client-only", help="Do not ask a cluster.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The version of this command, and of what runs on the cluster."""
    from controller.cli.cluster import show_version

    show_version(client_only=client_only, as_json=as_json)


NamespaceOption = Annotated[
    str, typer.Option("--fsm-namespace", "-N", metavar="NAMESPACE", help="The control plane's namespace.")
]
KubeconfigOption = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Path of a kubeconfig.", envvar="KUBECONFIG")
]
TimeoutOption = Annotated[str, typer.Option(metavar="DURATION", help="How long to wait, as 90s or 5m.")]


@app.command()
def install(
    namespace: NamespaceOption = "fsm-system",
    kubeconfig: KubeconfigOption = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value, as fsm.image=registry/name:tag.")
    ] = None,
    mesh_name: Annotated[str, typer.Option(metavar="NAME", help="The name of this installation.")] = "fsm",
    channel: Annotated[
        str, typer.Option(metavar="CHANNEL", help="Of the CRDs: standard, or experimental, which has more fields.")
    ] = "standard",
    skip_crds: Annotated[
        bool, typer.Option("--skip-crds", help="Leave the Gateway API's CRDs to whoever manages them in this cluster.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects instead of applying them.")] = False,
    timeout: TimeoutOption = "5m",
) -> None:
    """Install the Gateway API's CRDs, the controller and the GatewayClass on a cluster."""
    from controller.cli.cluster import install_cluster

    install_cluster(
        namespace=namespace,
        kubeconfig=kubeconfig,
        settings=settings or [],
        mesh_name=mesh_name,
        channel=channel,
        skip_crds=skip_crds,
        dry_run=dry_run,
        timeout=timeout,
    )


@app.command()
def uninstall(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="For those used to `fsm uninstall mesh`.")] = "mesh",
    namespace: NamespaceOption = "fsm-system",
    kubeconfig: KubeconfigOption = "",
    mesh_name: Annotated[str, typer.Option(metavar="NAME", help="The name of the installation.")] = "fsm",
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Remove what `fsm install` made, and nothing else. CRDs stay: other people's objects live in them."""
    from controller.cli.cluster import uninstall_cluster

    uninstall_cluster(namespace=namespace, kubeconfig=kubeconfig, mesh_name=mesh_name, force=force)


@gateway.command("enable")
def gateway_enable(namespace: NamespaceOption = "fsm-system", kubeconfig: KubeconfigOption = "") -> None:
    """Make the controller serve Gateways."""
    from controller.cli.cluster import switch_gateway

    switch_gateway(namespace=namespace, kubeconfig=kubeconfig, on=True)


@gateway.command("disable")
def gateway_disable(namespace: NamespaceOption = "fsm-system", kubeconfig: KubeconfigOption = "") -> None:
    """Stop the controller. Data planes go on with what they know; no Gateway is deleted."""
    from controller.cli.cluster import switch_gateway

    switch_gateway(namespace=namespace, kubeconfig=kubeconfig, on=False)


@gateway.command("status")
def gateway_status(
    namespace: NamespaceOption = "fsm-system", kubeconfig: KubeconfigOption = "", as_json: JsonOption = False
) -> None:
    """The controller, the classes and the Gateways of a cluster."""
    from controller.cli.cluster import show_gateways

    show_gateways(namespace=namespace, kubeconfig=kubeconfig, as_json=as_json)


@app.command()
def controller(
    namespace: Annotated[
        str, typer.Option(metavar="NAMESPACE", help="The namespace that the controller runs in.", envvar="POD_NAMESPACE")
    ] = "fsm-system",
    identity: Annotated[str, typer.Option(metavar="NAME", help="This replica's name.", envvar="POD_NAME")] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="The data planes' image.", envvar="FSM_IMAGE")] = "",
    feed_port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Where data planes connect.")] = 9443,
    health_port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Where probes ask.")] = 9090,
    allow_inline_filters: Annotated[
        bool,
        typer.Option(
            "--allow-inline-filters", help="Let FilterDefinitions ask for execution: inline.", envvar="FSM_ALLOW_INLINE_FILTERS"
        ),
    ] = False,
    secret_namespaces: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACES",
            help="Whose Secrets may be read: namespaces, with commas between; empty for all.",
            envvar="FSM_SECRET_NAMESPACES",
        ),
    ] = "",
) -> None:
    """Run the controller in a cluster. `fsm install` does this for you."""
    from controller.cli.controller import run_controller

    run_controller(
        namespace=namespace,
        identity=identity,
        image=image,
        feed_port=feed_port,
        health_port=health_port,
        inline=allow_inline_filters,
        secret_namespaces=secret_namespaces,
    )
