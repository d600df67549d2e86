-- Try every command of the scripts here on a place of its own. KEYS[1] the place.
-- Returns the names of those that the user may not give. Without COPY all works, in more room.
local tries = {
  {"SET", "x"}, {"STRLEN"}, {"GETRANGE", 0, 0}, {"APPEND", "x"}, {"SETRANGE", 0, "x"},
  {"PERSIST"}, {"PEXPIRE", 60000}, {"PTTL"}, {"UNLINK"},
  {"HSETNX", "f", "x"}, {"HSET", "f", "x"}, {"HGET", "f"}, {"HMGET", "f"}, {"HGETALL"},
  {"HEXISTS", "f"}, {"HLEN"}, {"HDEL", "f"}, {"HINCRBY", "n", 1}, {"EXPIRE", 60},
  {"UNLINK"},
}
local forbidden = {}
local function try(name, ...)
  local found = redis.pcall(name, ...)
  if type(found) == "table" and found.err and found.err:find("permission") then
    forbidden[#forbidden + 1] = name
  end
end
for _, one in ipairs(tries) do try(one[1], KEYS[1], unpack(one, 2)) end
try("RENAME", KEYS[1], KEYS[1])
try("TIME")
return forbidden
