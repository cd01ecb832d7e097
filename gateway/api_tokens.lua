-- Keeps the access tokens that auth_service gave for API tokens, so that a client that calls often needs one exchange in SECONDS. Each worker of Envoy
-- keeps its own. A service verifies the access token again, so what is kept opens nothing that auth_service has ended.

local SECONDS, MOST = 5, 1000
local EXCHANGE = "envoy.filters.http.ext_authz"
local kept, count = {}, 0

local function keep(api_token, access_token)
  if count == MOST then
    kept, count = {}, 0
  end
  if not kept[api_token] then
    count = count + 1
  end
  kept[api_token] = {access_token = access_token, at = os.time()}
end

-- Replaces an API token whose access token is kept. Then the exchange does not run, because its condition is no longer true.
function envoy_on_request(handle)
  local headers = handle:headers()
  local api_token = headers:get("authorization")  -- of several lines all values, joined, which is no token
  local found = kept[api_token]
  if found and 0 <= os.time() - found.at and os.time() - found.at < SECONDS then
    headers:replace("authorization", found.access_token)
  else
    handle:streamInfo():dynamicMetadata():set("api_tokens", "asked", api_token)
  end
end

-- Keeps what the exchange has given. After a refusal by a service, what is kept may have ended, and every token is exchanged anew.
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") == "401" or headers:get("grpc-status") == "16" then
    kept, count = {}, 0
    return
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  local asked, given = metadata:get("api_tokens"), metadata:get(EXCHANGE)
  if asked and given and given["authorization"] then
    keep(asked["asked"], given["authorization"])
  end
end
