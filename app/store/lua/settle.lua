-- Keep states, each only where it is of the history that is there now and knows no less of it than
-- the one kept: whoever writes last, the furthest stays. One that knows as much takes its place, so
-- that a damaged one does not last.
-- KEYS: history, states, history, states, ... ARGV: seconds that states live, most states of a user;
-- then, for each two keys: field, state with its header.
-- Returns how many were kept.
local STATE_HEADER = 24

-- The number after the last record of the history that a state is of; nil if there is no such one.
local function total_of(history, value)
  local record, _, name, gone, held = history_at(history)
  if not record or name == NO_NAME or name ~= value:sub(5, 8) then return nil end
  return gone + held
end

local function is_further(states, field, value, total)
  local _, seen = struct.unpack("<I8I8", value, 9)
  if seen > total then return false end
  local old = redis.pcall("HGET", states, field)
  if type(old) == "table" then return false end
  if not old or #old < STATE_HEADER or old:sub(1, 8) ~= value:sub(1, 8) then return true end
  local _, old_seen = struct.unpack("<I8I8", old, 9)
  return old_seen > total or seen >= old_seen
end

local kept, life_ms = 0, ARGV[1] * 1000
for i = 1, #KEYS, 2 do
  local states, field, value = KEYS[i + 1], ARGV[i + 2], ARGV[i + 3]
  local total = total_of(KEYS[i], value)
  if total and is_further(states, field, value, total) then
    -- States of versions that are served no more: they are caches, and made again where wanted.
    if redis.call("HEXISTS", states, field) == 0
      and redis.call("HLEN", states) >= tonumber(ARGV[2]) then
      redis.call("UNLINK", states)
    end
    redis.call("HSET", states, field, value)
    local left_ms = redis.call("PTTL", KEYS[i])  -- what is made of a history goes with it
    redis.call("PEXPIRE", states, left_ms > 0 and math.min(left_ms, life_ms) or life_ms)
    kept = kept + 1
  end
end
return kept
