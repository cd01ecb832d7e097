-- Rejects a REST request in which a time does not have the form of RFC 3339 as the services read it in filters: `2026-12-31T12:00:00.5+01:00`, with `T`
-- and `Z` in capitals, at most 9 digits of a second, and no leap second. The transcoder accepts more, and silently moves such times: a year of two
-- digits, a 60th second, a day of one digit. TIMES has the names of the fields. The reply's status is one that no other filter uses (replies.py).

local FORM = "must be a time such as 2026-12-31T12:00:00Z"

local function is_time(text)
  local second, rest = text:match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:(%d%d)(.*)$")
  if not second or second > "59" then
    return false
  end
  local digits, zone = rest:match("^%.(%d+)(.*)$")
  if digits then
    rest = zone
  end
  -- The transcoder checks the bounds of the other numbers.
  return (not digits or #digits <= 9) and (rest == "Z" or rest:match("^[+-]%d%d:%d%d$") ~= nil)
end

local function unescaped(text)
  if not text:find("\\", 1, true) then
    return text
  end
  return (text:gsub("\\u00(%x%x)", function(code) return string.char(tonumber(code, 16)) end):gsub("\\/", "/"))
end

-- Returns the text of the string that begins with the quotation mark at `from`, and the position after it.
local function string_at(body, from)
  local quote, at = body:sub(from, from), from + 1
  while true do
    local found = body:find("[\\" .. quote .. "]", at)
    if not found then
      return body:sub(from + 1), #body + 1
    elseif body:sub(found, found) == quote then
      return unescaped(body:sub(from + 1, found - 1)), found + 1
    end
    at = found + 2
  end
end

-- Returns whether the value of a field at `from` in the JSON text is a time or null, and the position after it.
local function is_time_at(body, from)
  if body:find("^[\"']", from) then
    local text, after = string_at(body, from)
    return is_time(text), after
  end
  return body:find("^null", from) ~= nil, from
end

-- Returns the name of a field in the JSON text whose value is not a time. Reads every string, which takes about 10 ns for each character. The transcoder
-- also reads names without quotation marks, and those with single ones, so this function does too.
local function wrong_in_all(body)
  local at = 1
  while true do
    at = body:find("[\"'%a_]", at)
    if not at then
      return nil
    end
    local text, after
    if body:find("^[\"']", at) then
      text, after = string_at(body, at)
    else
      text, after = body:match("^([%w_]+)()", at)
    end
    local value = TIMES[text] and body:match("^%s*:%s*()", after)
    if value then
      local right
      right, after = is_time_at(body, value)
      if not right then
        return text
      end
    end
    at = after
  end
end

-- The bytes that can follow the name of a field: a quotation mark, white space, or a colon.
local BEHIND_NAME = {}
for _, byte in ipairs({9, 10, 11, 12, 13, 32, 34, 39, 58}) do
  BEHIND_NAME[byte] = true
end

-- As wrong_in_all. Looks only at the names of the fields, if they stand in the text as every encoder writes them: inside of a string, a quotation mark has
-- a backslash before it.
local function wrong_in_body(body)
  -- A name can have escapes of letters. Most bodies have no such escape at all, which is found much faster than a pattern.
  if body:find("\\u00", 1, true) and body:find("\\u00[4-7]") then
    return wrong_in_all(body)
  end
  for name in pairs(TIMES) do
    local first, last = body:find(name, 1, true)
    while first do
      -- Not a part of a longer name or of a text. A byte is compared much faster than a pattern.
      local value = BEHIND_NAME[body:byte(last + 1)] and not body:find("^[%w_]", first - 1) and body:match("^[\"']?%s*:%s*()", last + 1)
      if value then
        if not (body:find('^[^\\]"', first - 2) and body:find('^"', last + 1)) then
          return wrong_in_all(body)
        elseif not is_time_at(body, value) then
          return name
        end
      end
      first, last = body:find(name, last + 1, true)
    end
  end
end

local function decoded(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
end

-- Returns the name of a parameter of the query whose value is not a time. A name has the names of the messages around the field before it.
local function wrong_in_query(query)
  for name, value in query:gmatch("([^&=]*)=?([^&]*)") do
    for part in decoded(name):gmatch("[^.]+") do
      if TIMES[part] and not is_time(decoded(value)) then
        return part
      end
    end
  end
end

function envoy_on_request(handle)
  local query = handle:headers():get(":path"):match("?(.*)")
  local wrong = query and wrong_in_query(query)
  local body = not wrong and handle:body()
  if body then
    wrong = wrong_in_body(body:getBytes(0, body:length()))
  end
  if wrong then
    handle:respond({[":status"] = "422"}, wrong .. ": " .. FORM)
  end
end
