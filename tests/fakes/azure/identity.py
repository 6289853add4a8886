"""Microsoft Entra ID and the managed-identity endpoints of Azure's machines, as far as azure-identity asks them for tokens."""

import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from tests.fakes.azure.messages import Request, Response

HOST = "login.microsoftonline.com"


class Identity:
    """Issues tokens to one service principal and to one managed identity, and knows them again."""

    def __init__(self) -> None:
        self.tenant_id = "0b3a5c1e-6f1d-4f57-9d0c-7a4f9a5f1c11"
        self.client_id = "5d2f3a90-93c4-4c3e-8c4b-2d5e9a7b6c22"
        self.client_secret = secrets.token_urlsafe(32)
        self.identity_header = secrets.token_hex(16)
        self.lifetime_s = 3600
        self.issued: dict[str, float] = {}

    def answer(self, request: Request) -> Response:
        """Answer what is asked of the authority's host."""
        if request.path.endswith("/oauth2/v2.0/token"):
            return self._token({key: values[0] for key, values in parse_qs(request.content.decode()).items()})
        if request.path.endswith("/.well-known/openid-configuration"):
            return Response(200, self._configuration())
        if request.path.endswith("/discovery/instance"):
            alias = {"preferred_network": HOST, "preferred_cache": "login.windows.net", "aliases": [HOST]}
            where = f"https://{HOST}/{self.tenant_id}/v2.0/.well-known/openid-configuration"
            return Response(200, {"tenant_discovery_endpoint": where, "api-version": "1.1", "metadata": [alias]})
        return Response(404, {"error": "not_found", "error_description": request.path})

    def answer_machine(self, request: Request) -> Response:
        """Answer what is asked of the endpoints that Azure's machines have: App Service and the metadata service."""
        asked_by_service = request.headers.get("x-identity-header") == self.identity_header
        asked_by_machine = (
            request.path.endswith("/metadata/identity/oauth2/token") and request.headers.get("metadata") == "true"
        )
        if not (asked_by_service or asked_by_machine):
            return Response(400, {"error": "invalid_request", "error_description": "Required metadata header not specified"})
        if request.query.get("client_id", self.client_id) != self.client_id:
            return Response(400, {"error": "invalid_request", "error_description": "Identity not found"})
        token = self._issue(request.query.get("resource", ""))
        expires = str(int(self.issued[token]))
        return Response(
            200, {"access_token": token, "expires_on": expires, "resource": request.query["resource"], "token_type": "Bearer"}
        )

    def knows(self, token: str) -> bool:
        """Tell whether a token was issued here and still counts."""
        return self.issued.get(token, 0) > time.time()

    def expire(self, token: str) -> None:
        """Make a token worthless before its time, as a revocation does."""
        self.issued[token] = 0.0

    def _token(self, form: dict[str, str]) -> Response:
        refusals: tuple[tuple[Callable[[], bool], str, str], ...] = (
            (
                lambda: form.get("client_id") != self.client_id,
                "unauthorized_client",
                "AADSTS700016: Application was not found.",
            ),
            (
                lambda: "client_assertion" not in form and form.get("client_secret") != self.client_secret,
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
            ),
        )
        for applies, error, description in refusals:
            if applies():
                return Response(401, {"error": error, "error_description": description, "error_codes": [7000215]})
        token = self._issue(form["scope"].split()[0].removesuffix("/.default"))
        ends = {"expires_in": self.lifetime_s, "ext_expires_in": self.lifetime_s}
        return Response(200, {"token_type": "Bearer", "access_token": token, **ends})

    def _issue(self, audience: str) -> str:
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": now,
            "nbf": now - 5,
            "exp": now + self.lifetime_s,
            "tid": self.tenant_id,
            "oid": self.client_id,
            "appid": self.client_id,
        }
        parts = [{"typ": "JWT", "alg": "RS256"}, claims]
        token = ".".join([*(_encode(json.dumps(part).encode()) for part in parts), _encode(secrets.token_bytes(32))])
        self.issued[token] = now + self.lifetime_s
        return token

    def _configuration(self) -> dict[str, Any]:
        base = f"https://{HOST}/{self.tenant_id}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
        }


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
