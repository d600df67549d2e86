-- Change one record of a user's history where it stands. The history has another name then: whatever
-- was made of it is of another history.
-- KEYS, ARGV 1-5: see change.lua; ARGV 6: number of the record, 7: response, 8: time of asking, 9:
-- elapsed time, each a number, or "" to leave it.
-- Returns {the record, its form, version}; or "reused", "unknown", "changed".
local number, response, asked, elapsed = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local before = answered_before()
if before then return before end
local record, form, name, gone, held, header, newest, is_there = history()
if record == false then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
local total = gone + held
if number >= total or number < total - math.min(held, keep) then return {"unknown"} end
if not is_meant(name, total, is_there) then return {"changed"} end

if header ~= HEADER or form == "KTH1" then  -- of before: it is written anew, in a form of now
  local records = redis.call("GETRANGE", KEYS[1], header, -1)
  local as = form_for(form, records)
  records = table.concat(records_as(as, form, records))
  form, record, newest = as, RECORD_OF[as], newest_in(as, records)
  redis.call("SET", KEYS[1], header_of(as, name, gone, newest) .. records)
end

local from = HEADER + (number - gone) * record
local one = redis.call("GETRANGE", KEYS[1], from, from + record - 1)
local at_end = struct.unpack("<I4", one, 15)
local is_right, elapsed_ms = at_end >= 2 ^ 31 and 1 or 0, at_end % 2 ^ 31
local asked_ms = asked_at(one, 1)
if response ~= "" then is_right = tonumber(response) end
if elapsed ~= "" then elapsed_ms = tonumber(elapsed) end
if asked ~= "" then asked_ms = tonumber(asked) end
one = one:sub(1, 8) .. struct.pack("<I4I2I4", asked_ms % 2 ^ 32, math.floor(asked_ms / 2 ^ 32),
  is_right * 2 ^ 31 + elapsed_ms) .. one:sub(PLAIN + 1)
redis.call("SETRANGE", KEYS[1], from, one)
if asked ~= "" then newest = newest_in(form, redis.call("GETRANGE", KEYS[1], HEADER, -1)) end
redis.call("SETRANGE", KEYS[1], 0, header_of(form, NEW_NAME, gone, newest))
return answered({one, tonumber(form:sub(4)), version_of(NEW_NAME, total)})
