-- Keep forecasts of users until their questions are answered. One that stood on a history which is not
-- there any more is not kept: its user has been forgotten.
-- KEYS: history, forecasts, history, forecasts, ... ARGV: seconds that forecasts live, most of a user;
-- then, for each two keys, forecasts without their time.
-- Returns how many were kept.
local TIMELESS, LENGTH = FORECAST - 4, 26  -- bytes, and which of them says how long the history was
local life_s, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, kept = struct.pack("<I4", redis.call("TIME")[1]), 0
for i = 1, #KEYS, 2 do
  local forecasts, new, timed = KEYS[i + 1], ARGV[2 + (i + 1) / 2], {}
  local is_there = redis.pcall("STRLEN", KEYS[i]) ~= 0
  for at = math.max(1, #new - most * TIMELESS + 1), #new, TIMELESS do
    if is_there or new:byte(at + LENGTH - 1) == 0 then
      timed[#timed + 1] = new:sub(at, at + 15) .. now .. new:sub(at + 16, at + TIMELESS - 1)
    end
  end
  local size = #timed > 0 and redis.pcall("APPEND", forecasts, table.concat(timed))
  if type(size) == "number" then
    if size > most * 1.25 * FORECAST then
      redis.call("SET", forecasts, redis.call("GETRANGE", forecasts, -most * FORECAST, -1))
    end
    redis.call("EXPIRE", forecasts, life_s)
    kept = kept + #timed
  end
end
return kept
