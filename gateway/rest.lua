-- What no filter of Envoy's own can do. Runs first on the way in and last on the way out.

-- Names of our inside, which Envoy tells everybody.
local INSIDE = { "x-envoy-upstream-healthchecked-cluster", "x-envoy-ratelimited" }

-- What the transcoder leaves of gRPC.
local LEAKS = { "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding" }

-- What a browser is told of every answer: it is what its type says, and no page or part of one (OWASP ASVS 5, section 3.4).
local TO_BROWSERS = {
  ["x-content-type-options"] = "nosniff",
  ["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'",
}

-- A request id goes into logs and traces of every service: keep a client's only as far as it is short and plain.
function envoy_on_request(handle)
  -- `/tasks/` is not `/tasks`: the transcoder takes it for that, the rules for tokens do not, and the services compare paths. So it is a path that
  -- there is not. (Routes are chosen after this.)
  local path = handle:headers():get(":path") or ""
  local bare, query = path:match("^([^?]+)/(%??.*)$")
  if bare and (query == "" or query:sub(1, 1) == "?") then
    handle:headers():replace(":path", bare .. "/./-" .. query)
  end
  -- The scheme's case is free (RFC 9110 section 11.1), and the filter for tokens knows one.
  local scheme, token = (handle:headers():get("authorization") or ""):match("^(%a+) (.*)$")
  if scheme and scheme ~= "Bearer" and scheme:lower() == "bearer" then
    handle:headers():replace("authorization", "Bearer " .. token)
  end
  local id = handle:headers():get("x-request-id")
  if id and (#id > 64 or id:find("[^%w%-_.:]")) then
    handle:headers():replace("x-request-id", (id:sub(1, 64):gsub("[^%w%-_.:]", "_")))
  end
end

-- A REST answer has nothing of gRPC in it, tells browsers what to do with it, and is 201 where the RPC's route says that it creates.
function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type")
  -- To a gRPC-Web client the gRPC-Web filter made a status of its own out of an HTTP status of Envoy's: here it is as for gRPC.
  local code = GRPC_CODES[headers:get(":status")]
  if code and content_type and content_type:find("application/grpc-web", 1, true) == 1 then
    headers:replace("grpc-status", code)
    headers:replace(":status", "200")
  end
  for _, name in ipairs(INSIDE) do
    headers:remove(name)
  end
  if not content_type or not (content_type:find("application/json", 1, true) == 1 or content_type:find("text/event-stream", 1, true) == 1) then
    return
  end
  for _, name in ipairs(LEAKS) do
    headers:remove(name)
  end
  for name, value in pairs(TO_BROWSERS) do
    headers:replace(name, value)
  end
  -- Tokens and people's tasks are kept by nobody on the way, unless it is said that they may be (RFC 6749 section 5.1).
  if not headers:get("cache-control") then
    headers:add("cache-control", "no-store")
  end
  if handle:streamInfo():downstreamSslConnection() then
    headers:replace("strict-transport-security", "max-age=31536000; includeSubDomains")
  end
  -- Envoy's own 401 has it already (RFC 9110 section 15.5.2).
  if headers:get(":status") == "401" and not headers:get("www-authenticate") then
    headers:add("www-authenticate", 'Bearer realm="task-manager"')
  end
  if headers:get(":status") == "200" and handle:metadata():get("creates") then
    headers:replace(":status", "201")
  end
end
