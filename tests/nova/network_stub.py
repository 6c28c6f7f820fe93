"""As much of Neutron's API as Nova asks for when its servers have no network: empty lists."""

import json


def application(env, start_response):
    last = env["PATH_INFO"].rstrip("/").rsplit("/", 1)[-1].removesuffix(".json")
    if last == "":
        link = {"rel": "self", "href": "http://%s/v2.0/" % env["HTTP_HOST"]}
        body = {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}
    elif last == "v2.0":
        body = {"resources": []}
    else:
        body = {last.replace("-", "_"): []}
    data = json.dumps(body).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response("200 OK", headers)
    return [data]
