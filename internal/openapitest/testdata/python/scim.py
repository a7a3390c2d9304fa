"""Has scim2-tester try every call of a SCIM server. Writes a line for each check, and fails if one does not succeed."""

import os
import sys

from httpx2 import Client
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

client = Client(
    base_url=os.environ["PATD_URL"] + "/scim/v2",
    headers={"Authorization": "Bearer " + os.environ["PATD_TOKEN"]},
)
scim = SyncSCIMClient(client)
scim.discover()
results = check_server(scim)
for result in results:
    print(result.status.name, result.title, result.reason or "")
bad = [result for result in results if result.status != Status.SUCCESS]
print(len(results) - len(bad), "of", len(results), "succeed")
sys.exit(1 if bad else 0)
