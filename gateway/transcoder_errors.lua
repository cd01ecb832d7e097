-- The transcoder's text of an error names types of the protos, and quotes the request at any length. Removes the types, and all but the first MOST
-- characters of what is quoted. The text is a JSON string in the reply's body, as replies.py formats it.
local MOST = 100

function envoy_on_response(handle)
  handle:headers():remove("x-from-transcoder")
  local body = handle:body()
  local before, text, after = body:getBytes(0, body:length()):match('^(.*"message":")(.*)("}%s*)$')
  if not text then
    return
  end
  text = text:gsub(' in the type \\"[^"]*\\"', ""):gsub(" for type [%w_./]+", "")
  -- Below the first line is the place in the body.
  text = text:gsub("\\u000a.*$", ""):gsub("\\n.*$", "")
  text = text:gsub('\\"(.*)\\"', function(quoted) return '\\"' .. first(quoted) .. '\\"' end)
  handle:headers():replace("content-length", tostring(body:setBytes(before .. first(text, 2 * MOST) .. after)))
end

-- Returns the first characters of a JSON string's text. An escape is one character, and so are the bytes of one character in UTF-8.
function first(text, most)
  local place, count = 1, 0
  while place <= #text do
    count = count + 1
    if count > (most or MOST) then
      return text:sub(1, place - 1) .. "…"
    end
    local byte = text:byte(place)
    if byte == 92 then
      place = place + (text:sub(place + 1, place + 1) == "u" and 6 or 2)
    else
      place = place + (byte >= 240 and 4 or byte >= 224 and 3 or byte >= 192 and 2 or 1)
    end
  end
  return text
end
