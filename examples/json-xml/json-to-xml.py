"""For a backend that speaks XML: JSON of clients becomes XML, and its XML becomes JSON."""

import xml.etree.ElementTree as ElementTree

from gateway.filters.api import Request, Response


def to_xml(name: str, value: object) -> ElementTree.Element:
    element = ElementTree.Element(name)
    if isinstance(value, dict):
        element.extend(to_xml(key, inner) for key, inner in value.items())
    else:
        element.text = str(value)
    return element


def from_xml(element: ElementTree.Element) -> object:
    return {child.tag: from_xml(child) for child in element} if len(element) else element.text


async def request(request: Request) -> None:
    if request.headers.get("content-type", "").startswith("application/json"):
        root = to_xml("request", await request.json())
        request.set_body(ElementTree.tostring(root), "application/xml")


async def response(request: Request, response: Response) -> None:
    if response.headers.get("content-type", "").startswith("application/xml"):
        root = ElementTree.fromstring(await response.body())
        response.set_body({root.tag: from_xml(root)})
