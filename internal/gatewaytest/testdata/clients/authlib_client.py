"""Drives patd with Authlib as its documentation says, and ends with 1 when something is not as it should be."""
import json
import sys

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749 import ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator

brief = json.load(sys.stdin)
issuer = brief["issuer"]
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def session(client_id, secret=None, method="client_secret_basic"):
    method = method if secret else "none"
    s = OAuth2Session(client_id, secret, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method)
    s.trust_env, s.verify = False, brief["ca"]  # not whatever the machine's environment has everybody believe
    return s


gateway = session(brief["service"]["id"], brief["service"]["secret"])
app = session("my-app")


class Validator(IntrospectTokenValidator):
    def introspect_token(self, token_string):
        response = gateway.introspect_token(issuer + "/oauth2/introspect", token=token_string)
        response.raise_for_status()  # an outage is no answer about a token
        return response.json()


class Presented:
    def __init__(self, token):
        self.headers = {"Authorization": "Bearer " + token}


protector = ResourceProtector()
protector.register_token_validator(Validator())


def passes(token, scope):
    return protector.validate_request([scope], Presented(token))


def raises(errors, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except errors as e:
        return e
    raise AssertionError("%s was let through" % (args,))


def granted(**kwargs):
    parameters = {"subject_token": brief["pat"], "subject_token_type": ACCESS_TOKEN, **kwargs}
    return dict(app.fetch_token(issuer + "/oauth2/token", grant_type=EXCHANGE, **parameters))


def refused(error, call, *args, **kwargs):
    got = raises(OAuthError, call, *args, **kwargs).error
    assert got == error, got


if brief["out"]:
    raises(requests.RequestException, passes, brief["pat"], "reports.read")
    assert gateway.revoke_token(issuer + "/oauth2/revoke", token=brief["pat"]).status_code == 503
    sys.exit(0)

for method in ("client_secret_basic", "client_secret_post"):
    asking = session(brief["service"]["id"], brief["service"]["secret"], method)
    answer = asking.introspect_token(issuer + "/oauth2/introspect", token=brief["pat"], token_type_hint="access_token").json()
    assert answer["active"] is True and answer["sub"] == brief["user"] and answer["iss"] == issuer, answer
wrong = session(brief["service"]["id"], "wrong").introspect_token(issuer + "/oauth2/introspect", token=brief["pat"])
assert wrong.status_code == 401, wrong.status_code

assert passes(brief["pat"], "reports.read")["sub"] == brief["user"]
raises(InsufficientScopeError, passes, brief["pat"], "admin.everything")
raises(InvalidTokenError, passes, "garbage", "reports.read")

first = granted(audience=brief["audience"], scope="reports.read offline_access")
assert first["expires_in"] > 0 and first["scope"].split() and first["issued_token_type"] == ACCESS_TOKEN
assert passes(first["access_token"], "reports.read")["client_id"] == "my-app"
raises(InsufficientScopeError, passes, first["access_token"], "billing.write")
refused("invalid_scope", granted, scope="nobody.has.this")
refused("invalid_target", granted, audience="nobody")

second = dict(app.refresh_token(issuer + "/oauth2/token", refresh_token=first["refresh_token"]))
passes(second["access_token"], "reports.read")
refused("invalid_grant", app.refresh_token, issuer + "/oauth2/token", refresh_token=first["refresh_token"])
raises(InvalidTokenError, passes, second["access_token"], "reports.read")

third = granted(audience=brief["audience"])
assert app.revoke_token(issuer + "/oauth2/revoke", token=third["access_token"]).status_code == 200
raises(InvalidTokenError, passes, third["access_token"], "reports.read")
assert gateway.revoke_token(issuer + "/oauth2/revoke", token=brief["pat"]).status_code == 200
raises(InvalidTokenError, passes, brief["pat"], "reports.read")
refused("invalid_request", granted)
