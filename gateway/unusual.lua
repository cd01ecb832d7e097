-- Changes that no built-in filter of Envoy can make. Envoy runs this filter only for the requests that conditions.UNUSUAL describes, because a script
-- costs more than every other filter. This filter processes requests first and responses last.

-- Normalizes the authorization scheme and the request id. Every service writes the request id to its logs and traces. So a client's request id is cut to
-- 64 characters, and characters other than letters, digits and `-_.:` become `_`.
function envoy_on_request(handle)
  -- The authentication scheme is case-insensitive (RFC 9110 section 11.1), and several spaces may follow it. Spaces around a value do not belong to it
  -- (section 5.5). The JWT filter accepts only `Bearer` and one space.
  local scheme, token = (handle:headers():get("authorization") or ""):match("^[ \t]*(%a+) +(.-)[ \t]*$")
  if scheme and scheme:lower() == "bearer" then
    handle:headers():replace("authorization", "Bearer " .. token)
  end
  local id = handle:headers():get("x-request-id")
  if id and (#id > 64 or id:find("[^%w%-_.:]")) then
    handle:headers():replace("x-request-id", (id:sub(1, 64):gsub("[^%w%-_.:]", "_")))
  end
  if is_grpc(handle) then
    check_compression(handle)
  else
    handle:headers():remove("grpc-encoding")  -- a REST request has no gRPC messages
    check_body(handle)
  end
end

function is_grpc(handle)
  return (handle:headers():get("content-type") or ""):find("application/grpc", 1, true) == 1
end

-- grpc ends a call with INTERNAL if it does not know the compression of the messages. A client expects UNIMPLEMENTED (gRPC's document compression.md).
function check_compression(handle)
  local encoding = handle:headers():get("grpc-encoding") or "identity"
  if encoding ~= "identity" and encoding ~= "gzip" and encoding ~= "deflate" then
    handle:respond({[":status"] = "501"}, "")
  end
end

-- The transcoder reads JSON in UTF-8 and nothing else (RFC 8259 section 8.1).
function check_body(handle)
  local encoding = (handle:headers():get("content-encoding") or "identity"):lower()
  local charset = (handle:headers():get("content-type") or ""):lower():match('charset%s*=%s*"?([^%s;"]*)')
  if encoding ~= "identity" or (charset and charset ~= "utf-8" and charset ~= "utf8" and charset ~= "us-ascii") then
    handle:respond({[":status"] = "415"}, "")
  end
end

-- For a gRPC-Web client, the gRPC-Web filter maps the HTTP status of an Envoy reply to its own gRPC status. Replaces it with the one for gRPC clients.
function envoy_on_response(handle)
  local headers = handle:headers()
  local code = GRPC_CODES[headers:get(":status")]
  if code and (headers:get("content-type") or ""):find("application/grpc-web", 1, true) == 1 then
    headers:replace("grpc-status", code)
    headers:replace(":status", "200")
  end
end
