-- Keep forecasts of users until their questions are answered. One that stood on a history which is not
-- there any more is not kept: its user has been forgotten.
-- KEYS: history, forecasts, history, forecasts, ... ARGV: seconds that forecasts live, most of a user;
-- then, for each two keys, forecasts without their time.
-- Returns how many were kept.
local TIMELESS, LENGTH = FORECAST - 4, 26  -- bytes, and which of them says how long the history was
local APART = "(" .. string.rep(".", 16) .. ")(" .. string.rep(".", TIMELESS - 16) .. ")"
local life_s, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = struct.pack("<I4", redis.call("TIME")[1])
local TIMED = "%1" .. now:gsub("%%", "%%%%") .. "%2"

-- Those of a user of whom nothing was known then.
local function of_nobody(forecasts)
  local found = {}
  for at = 1, #forecasts, TIMELESS do
    if forecasts:byte(at + LENGTH - 1) == 0 then
      found[#found + 1] = forecasts:sub(at, at + TIMELESS - 1)
    end
  end
  return table.concat(found)
end

local kept = 0
for i = 1, #KEYS, 2 do
  local forecasts, new = KEYS[i + 1], ARGV[2 + (i + 1) / 2]
  if redis.pcall("STRLEN", KEYS[i]) == 0 then new = of_nobody(new) end
  new = new:sub(-most * TIMELESS)
  local size = #new > 0 and redis.pcall("APPEND", forecasts, (new:gsub(APART, TIMED)))
  if type(size) == "number" then
    local count, is_spoilt = math.floor(size / FORECAST), size % FORECAST > 0
    if count > most * 2 or is_spoilt then  -- these are at its end
      local bytes = math.min(count, most) * FORECAST
      redis.call("SET", forecasts, redis.call("GETRANGE", forecasts, -bytes, -1))
    end
    redis.call("EXPIRE", forecasts, life_s)
    kept = kept + #new / TIMELESS
  end
end
return kept
