-- Changes that no built-in filter of Envoy can make. Envoy runs this filter only for the requests that conditions.UNUSUAL describes, because a script
-- costs more than every other filter. This filter processes requests first and responses last.

-- Normalizes the authorization scheme and the request id. Every service writes the request id to its logs and traces. So a client's request id is cut to
-- 64 characters, and characters other than letters, digits and `-_.:` become `_`.
function envoy_on_request(handle)
  -- The authentication scheme is case-insensitive (RFC 9110 section 11.1), but the JWT filter accepts only `Bearer`.
  local scheme, token = (handle:headers():get("authorization") or ""):match("^(%a+) (.*)$")
  if scheme and scheme ~= "Bearer" and scheme:lower() == "bearer" then
    handle:headers():replace("authorization", "Bearer " .. token)
  end
  local id = handle:headers():get("x-request-id")
  if id and (#id > 64 or id:find("[^%w%-_.:]")) then
    handle:headers():replace("x-request-id", (id:sub(1, 64):gsub("[^%w%-_.:]", "_")))
  end
  check_encoding(handle)
end

-- grpc ends a call with INTERNAL if it does not know the compression of the messages. A REST request has no gRPC messages, so the header means nothing
-- there. A gRPC call ends with UNIMPLEMENTED (gRPC's document compression.md).
function check_encoding(handle)
  local headers = handle:headers()
  local encoding = headers:get("grpc-encoding")
  if not encoding or encoding == "identity" or encoding == "gzip" or encoding == "deflate" then
    return
  end
  if (headers:get("content-type") or ""):find("application/grpc", 1, true) == 1 then
    handle:respond({[":status"] = "501"}, "")
  else
    headers:remove("grpc-encoding")
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
