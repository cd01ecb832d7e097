-- Changes that no built-in filter of Envoy can make. This filter processes requests first and responses last.

-- Headers that Envoy adds to responses and that reveal internal names.
local INSIDE = { "x-envoy-upstream-healthchecked-cluster", "x-envoy-ratelimited" }

-- gRPC headers that the transcoder leaves in a REST response.
local LEAKS = { "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding" }

-- Headers for browsers: do not guess the content type, and do not render the answer as a page or inside a page (OWASP ASVS 5, section 3.4).
local TO_BROWSERS = {
  ["x-content-type-options"] = "nosniff",
  ["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'",
}

-- Normalizes the path, the authorization scheme and the request id. Every service writes the request id to its logs and traces. So a client's request
-- id is cut to 64 characters, and characters other than letters, digits and `-_.:` become `_`.
function envoy_on_request(handle)
  -- `/tasks/` is not `/tasks`. The transcoder treats them as the same path, but the JWT rules do not. So a path with a trailing slash is replaced by
  -- one that does not exist. (Envoy chooses the route after this.)
  local path = handle:headers():get(":path") or ""
  local bare, query = path:match("^([^?]+)/(%??.*)$")
  if bare and (query == "" or query:sub(1, 1) == "?") then
    handle:headers():replace(":path", bare .. "/./-" .. query)
  end
  -- The authentication scheme is case-insensitive (RFC 9110 section 11.1), but the JWT filter accepts only `Bearer`.
  local scheme, token = (handle:headers():get("authorization") or ""):match("^(%a+) (.*)$")
  if scheme and scheme ~= "Bearer" and scheme:lower() == "bearer" then
    handle:headers():replace("authorization", "Bearer " .. token)
  end
  local id = handle:headers():get("x-request-id")
  if id and (#id > 64 or id:find("[^%w%-_.:]")) then
    handle:headers():replace("x-request-id", (id:sub(1, 64):gsub("[^%w%-_.:]", "_")))
  end
end

-- Removes the gRPC headers from a REST answer, adds the headers for browsers, and sets the status 201 if the RPC's route says that it creates a
-- resource.
function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type")
  -- For a gRPC-Web client, the gRPC-Web filter maps the HTTP status of an Envoy reply to its own gRPC status. Replace it with the one for gRPC
  -- clients.
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
  -- No cache may store tokens or users' tasks, unless the service sets cache-control itself (RFC 6749 section 5.1).
  if not headers:get("cache-control") then
    headers:add("cache-control", "no-store")
  end
  if handle:streamInfo():downstreamSslConnection() then
    headers:replace("strict-transport-security", "max-age=31536000; includeSubDomains")
  end
  -- Envoy's own 401 replies have this header already (RFC 9110 section 15.5.2).
  if headers:get(":status") == "401" and not headers:get("www-authenticate") then
    headers:add("www-authenticate", 'Bearer realm="task-manager"')
  end
  if headers:get(":status") == "200" and handle:metadata():get("creates") then
    headers:replace(":status", "201")
  end
end
