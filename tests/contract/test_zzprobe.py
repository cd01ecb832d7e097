import json, pathlib, httpx
from tests.support.calls import *
from tests.support.descriptors import named
from tests.contract.table import make_world
async def test_x(rest, system, ways):
    w, acc = await make_world(rest)
    H=acc.headers
    r = await rest.post("/api/v1/tasks", json={"title":"other"}, headers=H); b=r.json()["id"]; a=w.task_id
    for verb, p, body in (("GET",f"/api/v1/tasks/{a}/?id={b}",None),("GET",f"/api/v1/task%73/{a}?id={b}",None),("GET",f"/api/v1/tasks/{a}#x?id={b}",None),("GET",f"/api/v1/x/../tasks/{a}?id={b}",None),("PUT",f"/api/v1/tasks/{a}/?task.id={b}",{"title":"HIJACK"}),("PUT",f"/api/v1/tasks/{a}/",{"title":"HIJACK","id":b}),("GET",f"/api/v1/tasks/{a};x?id={b}",None),("GET",f"/api/v1/tasks/{a}/%20?id={b}",None), ("DELETE",f"/api/v1/tasks/{a}/?id={b}",None), ("GET",f"/api/v1/tasks/{b}",None)):
        r = await rest.request(verb,p,json=body,headers=H); print(verb,p[-60:],r.status_code,r.text[:200], r.status_code==200 and r.text!='{}' and r.json()["id"]==b and "!!! B")
    r = await rest.post("/api/v1/tasks", json={"title":"a","due_date":"9999-12-31T23:59:59.999999Z"}, headers=H); d=r.json()["id"]
    r = await rest.get(f"/api/v1/tasks/{d}", headers=H); print(r.status_code, r.text[:200])
    r = await rest.get(f"/api/v1/tasks", headers=H); print("list", r.status_code)
    r = await rest.get(f"/api/v1/tasks?order_by=due_date&page_size=1", headers=H); print("list due", r.status_code, r.text[-200:])
    for url in ("/api/v1/tasks","/api/v1/auth/login"):
        out=[]
        for i in range(10):
            try:
                r = await rest.post(url, content=b'{"title":"'+b'a'*(4<<20)+b'"}', headers=H); out.append(r.status_code)
            except httpx.HTTPError as e: out.append(repr(e))
        print(url, out)
    async with httpx.AsyncClient(base_url=system.state.url, http1=False, http2=True, timeout=20) as c2:
        out=[]
        for i in range(10):
            try:
                r = await c2.post("/api/v1/tasks", content=b'{"title":"'+b'a'*(4<<20)+b'"}', headers=H); out.append((r.status_code, r.text))
            except httpx.HTTPError as e: out.append(repr(e))
        print("h2", out)
    rpc = named("TaskService.CreateTask")
    big = message_of(rpc, {"task": {"title":"a","description":"x"*(4<<20)}})
    for n, ch in (("gw", ways.gateway),("direct", ways.services["task"])):
        print(n, await rpc_call(ch, rpc, big, (("authorization", f"Bearer {acc.access_token}"),)))
    for mb in (2.9, 3.0, 3.05):
        big = message_of(rpc, {"task": {"title":"a","description":"x"*int(mb*(1<<20))}})
        for n, ch in (("gw", ways.gateway),("direct", ways.services["task"])):
            print(mb, n, await rpc_call(ch, rpc, big, (("authorization", f"Bearer {acc.access_token}"),)))
