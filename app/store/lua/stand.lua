-- How users stand: of each, the state that a model has kept, and the records after it.
-- Numbers count from the user's very first record, which is 0.
-- KEYS: history, states, history, states, ... ARGV: most records kept; then, for each two keys: field
-- of the state, its bytes, places of a window, places it is cut by, "window" for all its records;
-- then what the caller holds already: name of its history, number of the first record it stands on,
-- number after the last one. Where that fits, only what is after it is returned.
-- Returns for each {records, number of the first one, records kept, number after the newest one,
-- number of the first record a state stands on, number after the last one in it, state, name of the
-- history, 1 where what the caller holds is that state}; or {error}. Without a state that fits, the
-- last two numbers are the same.
local HEADER, RECORD, STATE_HEADER, NO_NAME = 16, 40, 24, string.rep("\0", 4)

local function stands(history, states, field, bytes, length, cut, whole, held_name, held_start, held_seen)
  local size = redis.pcall("STRLEN", history)
  if type(size) == "table" then return {"KTCORRUPT"} end
  if size == 0 then return {"", 0, 0, 0, 0, 0, "", "", 0} end
  local header = redis.call("GETRANGE", history, 0, HEADER - 1)
  if header:sub(1, 4) ~= "KTH1" or size % RECORD ~= HEADER then return {"KTCORRUPT"} end
  local name = header:sub(5, 8)
  local gone, held = struct.unpack("<I8", header, 9), (size - HEADER) / RECORD
  local total, kept = gone + held, math.min(held, tonumber(ARGV[1]))
  local over = total + 1 - length
  local start = over <= 0 and 0 or math.ceil(over / cut) * cut
  start = math.max(start, total - kept)
  local seen, state = start, ""
  local is_held = held_name == name and name ~= NO_NAME and held_start == start
    and held_seen >= start and held_seen <= total
  if is_held then seen, whole = held_seen, false end
  local value = bytes > 0 and not is_held and redis.pcall("HGET", states, field)  -- some models keep none
  -- A history without a name may have been forgotten by a server that knew of no states.
  local fits = type(value) == "string" and #value == STATE_HEADER + bytes and name ~= NO_NAME
  if fits and value:sub(1, 8) == "KTS1" .. name then
    local from, upto = struct.unpack("<I8I8", value, 9)
    if from == start and upto >= start and upto <= total then
      seen, state = upto, value:sub(STATE_HEADER + 1)
    end
  end
  -- One record more: the first answer's lag is from the one before it.
  local first = math.max((whole and start or seen) - 1, total - kept)
  local records = ""
  if first < total then
    records = redis.call("GETRANGE", history, HEADER + (first - gone) * RECORD, -1)
  end
  return {records, first, kept, total, start, seen, state, name, is_held and 1 or 0}
end

local found = {}
for i = 1, #KEYS, 2 do
  local at = 2 + (i - 1) / 2 * 8
  found[#found + 1] = stands(KEYS[i], KEYS[i + 1], ARGV[at], tonumber(ARGV[at + 1]),
    tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 4] == "window", ARGV[at + 5],
    tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7]))
end
return found
