-- How users stand with one model: of each, the state that it has kept, and the records after it.
-- Numbers count from the user's very first record, which is 0.
-- KEYS: history, states, history, states, ... ARGV: most records kept; field of the state, its bytes
-- (0 for none), places of a window, places it is cut by, "window" for all its records; then, or for
-- nobody, what the caller holds already of each user: name of the history, number of the first record
-- it stands on, number after the last one.
-- Returns {rows, {state, ...}, {records, ...}}: 48 bytes a user (number of the first record here,
-- records kept, number after the newest one, number of the first record that the state stands on,
-- number after the last one in it, name of the history, 1 where there is a state, 2 where what the
-- caller holds takes its place, form of the records); the states there are, with their headers; the records of those who
-- have any. Without a state that fits, the fourth and fifth number are the same. Where a history is
-- in no form of ours, "records kept" is -1.
-- Rows are small and go in one string; joining the rest here would copy it three times.
local STATE_HEADER, ROW = 24, "<i8i8i8i8i8c4I2I2"
local pack, unpack = struct.pack, struct.unpack
local call, ceil, max, min = redis.pcall, math.ceil, math.max, math.min
local keep, field, bytes, length, cut, whole =
  tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]),
  ARGV[6] == "window"
local EMPTY = pack(ROW, 0, 0, 0, 0, 0, NO_NAME, 0, 0)
local SPOILT = pack(ROW, 0, -1, 0, 0, 0, NO_NAME, 0, 0)
local rows, states, records = {}, {}, {}

local function stands(history, kept_states, at)
  local record, form, name, gone, held, header = history_at(history)
  if record == nil then return EMPTY end
  if not record then return SPOILT end
  local total, kept = gone + held, min(held, keep)
  local over = total + 1 - length
  local start = max(over <= 0 and 0 or ceil(over / cut) * cut, total - kept)
  local seen, has_state, whole = start, 0, whole
  if ARGV[at] == name and name ~= NO_NAME and tonumber(ARGV[at + 1]) == start then
    local upto = tonumber(ARGV[at + 2])
    if upto >= start and upto <= total then seen, has_state, whole = upto, 2, false end
  end
  local value = bytes > 0 and has_state == 0 and call("HGET", kept_states, field)
  -- A history without a name may have been forgotten by a server that knew of no states.
  if type(value) == "string" and #value == STATE_HEADER + bytes and name ~= NO_NAME then
    local mark, of, from, upto = unpack("<c4c4I8I8", value)
    if mark == "KTS1" and of == name and from == start and upto >= start and upto <= total then
      seen, has_state = upto, 1
      states[#states + 1] = value
    end
  end
  -- One record more: the first answer's lag is from the one before it.
  local first = max((whole and start or seen) - 1, total - kept)
  if first < total then
    records[#records + 1] = call("GETRANGE", history, header + (first - gone) * record, -1)
  end
  return pack(ROW, first, kept, total, start, seen, name, has_state, tonumber(form:sub(4)))
end

for i = 1, #KEYS, 2 do
  rows[#rows + 1] = stands(KEYS[i], KEYS[i + 1], 7 + (i - 1) / 2 * 3)
end
return {table.concat(rows), states, records}
