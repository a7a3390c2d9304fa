"""A small API gateway for the tests, by Authlib's ResourceProtector: it asks about every token on every request."""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from posixpath import normpath
from urllib.parse import quote, unquote, urlsplit

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749 import OAuth2Error, ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator

brief = json.load(sys.stdin)
ROUTES = {"/reports/": "reports.read", "/billing/": "billing.write"}


class Validator(IntrospectTokenValidator):
    def introspect_token(self, token_string):
        with OAuth2Session(brief["service"]["id"], brief["service"]["secret"]) as session:
            session.trust_env, session.verify = False, brief["ca"]
            response = session.introspect_token(
                brief["issuer"] + "/oauth2/introspect", token=token_string, body="client_ip=" + self.client_ip, timeout=5
            )
        response.raise_for_status()  # an outage is no answer about a token
        return response.json()


def protector(client_ip):
    validator = Validator()
    validator.client_ip = client_ip
    p = ResourceProtector()
    p.register_token_validator(validator)
    return p


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, headers=()):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        path = urlsplit("http://any" + self.path).path
        scope = next((s for prefix, s in ROUTES.items() if path.startswith(prefix)), None)
        plain = unquote(path)
        if scope is None or "\\" in plain or ".;" in plain or plain != normpath(plain) + "/" * plain.endswith("/"):
            return self.answer(404)
        try:
            token = protector(self.client_address[0]).validate_request([scope], self)
        except InsufficientScopeError:  # which knows no challenge of its own
            return self.answer(403, [("WWW-Authenticate", 'Bearer error="insufficient_scope", scope="%s"' % scope)])
        except OAuth2Error as error:
            return self.answer(error.status_code, [h for h in error.get_headers() if h[0] == "WWW-Authenticate"])
        except (requests.RequestException, ValueError, KeyError):
            return self.answer(503)
        # Of what the client sent nothing goes on but the path.
        upstream = requests.get("http://" + brief["upstream"] + self.path, headers={"X-Auth-User": quote(token["sub"], safe="")})
        return self.answer(upstream.status_code)


host, port = brief["listen"].split(":")
ThreadingHTTPServer((host, int(port)), Gateway).serve_forever()
