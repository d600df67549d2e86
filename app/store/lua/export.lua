-- Read all that is kept of a user, as it lies there.
-- KEYS: history, states, calls answered lately, forecasts.
-- Returns {name of the history, records gone before those held, records, their form, milliseconds that
-- each key lives on (-1 for ever, -2 where there is none), fields of the states, of the calls, the
-- forecasts}.
local record, form, name, gone, _, header = history_at(KEYS[1])
if record == false then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
local left = {}
for i, key in ipairs(KEYS) do left[i] = redis.call("PTTL", key) end
local states, calls = redis.call("HGETALL", KEYS[2]), redis.call("HGETALL", KEYS[3])
local forecasts = redis.call("GETRANGE", KEYS[4], 0, -1)
if not record then return {NO_NAME, 0, "", 2, left, states, calls, forecasts} end
local records = redis.call("GETRANGE", KEYS[1], header, -1)
return {name, gone, records, tonumber(form:sub(4)), left, states, calls, forecasts}
