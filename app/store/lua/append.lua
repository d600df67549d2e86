-- Add records to a user's history: all of them, but for those whose event key is there already.
-- KEYS[1] the history; ARGV: records, most records kept, four bytes that name a new history.
-- Returns {records added, duplicates left out, records kept now}.
local HEADER, RECORD, EVENT, NO_EVENT = 16, 40, 17, string.rep("\0", 8)
local value = redis.call("GET", KEYS[1]) or ""
if value ~= "" and (value:sub(1, 4) ~= "KTH1" or #value % RECORD ~= HEADER) then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
local new, keep = ARGV[1], tonumber(ARGV[2])

local function event_of(records, at)
  return records:sub(at + EVENT - 1, at + EVENT + 6)
end

local seen, added, left_out = nil, {}, 0
for at = 1, #new, RECORD do
  local event = event_of(new, at)
  if event ~= NO_EVENT and not seen then
    seen = {}
    for old = HEADER + 1, #value, RECORD do
      seen[event_of(value, old)] = true
    end
  end
  if event ~= NO_EVENT and seen[event] then
    left_out = left_out + 1
  else
    if event ~= NO_EVENT then seen[event] = true end
    added[#added + 1] = new:sub(at, at + RECORD - 1)
  end
end

local is_named = value ~= "" and value:sub(5, 8) ~= string.rep("\0", 4)  -- once they were not
local count = (value == "" and 0 or (#value - HEADER) / RECORD) + #added
if count > keep * 1.25 then
  -- Cut down to what is kept, not on every call: the copy is shared by a quarter of the appends.
  local dropped = value == "" and 0 or struct.unpack("<I8", value, 9)
  local records = value:sub(HEADER + 1) .. table.concat(added)
  local name = is_named and value:sub(5, 8) or ARGV[3]
  local header = "KTH1" .. name .. struct.pack("<I8", dropped + count - keep)
  redis.call("SET", KEYS[1], header .. records:sub(-keep * RECORD))
elseif #added > 0 then
  local header = value == "" and "KTH1" .. ARGV[3] .. string.rep("\0", 8) or ""
  redis.call("APPEND", KEYS[1], header .. table.concat(added))
  if value ~= "" and not is_named then redis.call("SETRANGE", KEYS[1], 4, ARGV[3]) end
end
return {#added, left_out, math.min(count, keep)}
