-- Keep states, each only where it is of the history that is there now and knows more of it than the
-- one kept: whoever writes last, the furthest stays.
-- KEYS: history, states, history, states, ... ARGV: seconds that states live, most states of a user;
-- then, for each two keys: field, state with its header.
-- Returns how many were kept.
local HEADER, RECORD = 16, 40

local function numbers(value)
  return struct.unpack("<I8I8", value, 9)
end

local function is_of(history, value)
  local size = redis.pcall("STRLEN", history)
  if type(size) == "table" or size == 0 then return false end
  local header = redis.call("GETRANGE", history, 0, HEADER - 1)
  if header:sub(1, 4) ~= "KTH1" or header:sub(5, 8) ~= value:sub(5, 8) then return false end
  local _, seen = numbers(value)
  return seen <= struct.unpack("<I8", header, 9) + (size - HEADER) / RECORD
end

local function is_further(states, field, value)
  local old = redis.pcall("HGET", states, field)
  if type(old) == "table" then return false end
  if not old or old:sub(1, 8) ~= value:sub(1, 8) then return true end
  local old_start, old_seen = numbers(old)
  local start, seen = numbers(value)
  return start > old_start or (start == old_start and seen > old_seen)
end

local kept = 0
for i = 1, #KEYS, 2 do
  local states, field, value = KEYS[i + 1], ARGV[i + 2], ARGV[i + 3]
  if is_of(KEYS[i], value) and is_further(states, field, value) then
    -- States of versions that are served no more: they are caches, and made again where wanted.
    if redis.call("HEXISTS", states, field) == 0
      and redis.call("HLEN", states) >= tonumber(ARGV[2]) then
      redis.call("UNLINK", states)
    end
    redis.call("HSET", states, field, value)
    redis.call("EXPIRE", states, ARGV[1])
    kept = kept + 1
  end
end
return kept
