-- What the scripts that change a history have in common: this stands before them, after history.lua.
-- KEYS: the history, a place beside it, the calls of its user that have been answered lately. ARGV:
-- four bytes that name a new history, most records kept, versions of the history that are meant,
-- versions that are not ("" for any; or "*", or "=" and then 12 bytes each); key and content of the
-- call, 16 bytes each, or ""; then what is the script's own.
-- A change that is refused says why in one word, in place of its answer.
local NEW_NAME, keep, MEANT, NOT_MEANT, CALL =
  ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local PLAIN, NONE, NO_TIME = 18, string.rep("\0", 8), 2 ^ 48 - 1
local SKILLS_AT, EVENT_AT = { KTH3 = 18, KTH5 = 18 }, { KTH4 = 18, KTH5 = 26 }
local CALL_LIFE_S = 86400

local function version_of(name, total) return name .. struct.pack("<I8", total) end

local function is_among(versions, version, is_there)
  if versions == "*" then return is_there end
  for at = 2, #versions, 12 do
    if versions:sub(at, at + 11) == version then return true end
  end
  return false
end

local function is_meant(name, total, is_there)
  if MEANT == "" and NOT_MEANT == "" then return true end
  local version = version_of(name, total)
  if MEANT ~= "" and not is_among(MEANT, version, is_there) then return false end
  return NOT_MEANT == "" or not is_among(NOT_MEANT, version, is_there)
end

-- What the same call was answered before, and behind it "again"; "reused" where that was another
-- call; nil where it is new.
local function answered_before()
  local kept = CALL ~= "" and redis.call("HGET", KEYS[3], CALL:sub(1, 16))
  if not kept then return nil end
  local until_s, content = struct.unpack("<I8c16", kept)
  if until_s <= tonumber(redis.call("TIME")[1]) then return nil end
  if content ~= CALL:sub(17) then return {"reused"} end
  local answer = cmsgpack.unpack(kept:sub(25))
  answer[#answer + 1] = "again"
  return answer
end

-- Keep an answer and return it. Beside the answers lie, under numbers, their times and keys as they
-- came: so the oldest are found that nobody will ask for again.
local function answered(answer)
  if CALL == "" then return answer end
  local calls, key, now_s = KEYS[3], CALL:sub(1, 16), tonumber(redis.call("TIME")[1])
  local until_s = struct.pack("<I8", now_s + CALL_LIFE_S)
  local last = redis.call("HINCRBY", calls, "last", 1)
  local value = until_s .. CALL:sub(17) .. cmsgpack.pack(answer)
  redis.call("HSET", calls, key, value, last, until_s .. key)
  for _ = 1, 2 do  -- more than comes
    local first = tonumber(redis.call("HGET", calls, "first") or 1)
    local oldest = redis.call("HGET", calls, first)
    if struct.unpack("<I8", oldest) > now_s then break end
    local kept = redis.call("HGET", calls, oldest:sub(9))  -- it may be another's by now
    if kept and kept:sub(1, 8) == oldest:sub(1, 8) then redis.call("HDEL", calls, oldest:sub(9)) end
    redis.call("HDEL", calls, first)
    redis.call("HSET", calls, "first", first + 1)
  end
  local left_ms, life_ms = redis.call("PTTL", KEYS[1]), CALL_LIFE_S * 1000
  redis.call("PEXPIRE", calls, left_ms > 0 and math.min(left_ms, life_ms) or life_ms)
  return answer
end

local function key_at(records, at, offset)
  return offset and records:sub(at + offset, at + offset + 7) or NONE
end

-- The parts of a record: question, times and answer; skills; event.
local function apart(of_form, records, at)
  if of_form == "KTH1" then
    local elapsed, response = records:byte(at + 35, at + 36)
    local times = records:sub(at + 24, at + 29) .. records:sub(at + 32, at + 34)
    return records:sub(at, at + 7) .. times .. string.char(elapsed % 128 + 128 * response),
      key_at(records, at, 8), key_at(records, at, 16)
  end
  return records:sub(at, at + PLAIN - 1), key_at(records, at, SKILLS_AT[of_form]),
    key_at(records, at, EVENT_AT[of_form])
end

local function together(as_form, plain, skills, event)
  return plain .. (SKILLS_AT[as_form] and skills or "") .. (EVENT_AT[as_form] and event or "")
end

-- When the question of a record was asked, in any form but the first.
local function asked_at(records, at)
  local low, high = struct.unpack("<I4I2", records, at + 8)
  return high * 2 ^ 32 + low
end

-- Records in another form, one by one.
local function records_as(as_form, form, records)
  local anew = {}
  for at = 1, #records, RECORD_OF[form] do
    anew[#anew + 1] = together(as_form, apart(form, records, at))
  end
  return anew
end

-- The form that has room for what records hold, and for what is to come: skills, events.
local function form_for(form, records, has_skills, has_events)
  if form == "KTH1" then  -- it is read through once
    for at = 1, #records, RECORD_OF[form] do
      local _, skills, event = apart(form, records, at)
      has_skills, has_events = has_skills or skills ~= NONE, has_events or event ~= NONE
    end
  end
  has_skills, has_events = has_skills or SKILLS_AT[form], has_events or EVENT_AT[form]
  return has_skills and (has_events and "KTH5" or "KTH3") or (has_events and "KTH4" or "KTH2")
end

-- The newest known time of asking in records, in any form but the first; 0 for none.
local function newest_in(form, records)
  local newest = 0
  for at = 1, #records, RECORD_OF[form] do
    local asked = asked_at(records, at)
    if asked ~= NO_TIME and asked > newest then newest = asked end
  end
  return newest
end

local function header_of(form, name, gone, newest)
  return form .. name .. struct.pack("<I8I8", gone, newest)
end

-- The history, in the form of now; its parts as `history_at` tells them, and whether it is there.
local function history()
  local record, form, name, gone, held, header, newest = history_at(KEYS[1])
  if record == nil then return RECORD_OF.KTH2, "KTH2", NO_NAME, 0, 0, HEADER, 0, false end
  return record, form, name, gone, held, header, newest, true
end
