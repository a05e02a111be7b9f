"""Lets in who has a token that is signed with the key of the service, and says to the backend who it is."""

import jwt

from gateway.filters.api import Request, Response, config

KEYS = config["keys"]  # by the first element of the path


def request(request: Request) -> Response | None:
    service = request.path.split("/")[1]
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if service not in KEYS:
        return Response(401, "Invalid key\n")
    if scheme.lower() != "bearer":
        return Response(401, "Invalid token\n", {"WWW-Authenticate": "Bearer"})
    try:
        claims = jwt.decode(token, KEYS[service], algorithms=["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidSignatureError:
        return Response(401, "Invalid signature\n", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    except jwt.InvalidTokenError:
        return Response(401, "Invalid token\n", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    if service not in claims.get("services", [service]):
        return Response(403, "Access denied\n")
    request.headers["X-User"] = claims["sub"]
    return None
