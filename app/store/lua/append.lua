-- Add records to a user's history: all of them, but for those whose event key is there already.
-- KEYS: the history, a place beside it; ARGV: records in the widest form, most records kept, four
-- bytes that name a new history.
-- Returns {records added, duplicates left out, records kept now}.
local PLAIN, WIDEST, NONE = 18, RECORD_OF.KTH5, string.rep("\0", 8)
local SKILLS_AT, EVENT_AT = { KTH3 = 18, KTH5 = 18 }, { KTH4 = 18, KTH5 = 26 }
local A_FEW = 8  -- for these a history is searched; for more, its events are put in a table
local new, keep = ARGV[1], tonumber(ARGV[2])
local record, form, name, gone, held = history_at(KEYS[1])
if record == false then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
if not record then form, name, gone, held = "KTH2", ARGV[3], 0, 0 end

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

local old  -- records held; read where they are wanted
local function held_records()
  old = old or (record and redis.call("GETRANGE", KEYS[1], HEADER, -1) or "")
  return old
end

local events
local function is_there(event)
  local offset = form == "KTH1" and 16 or EVENT_AT[form]
  if not offset then return false end
  local records = held_records()
  if #new > A_FEW * WIDEST then
    if not events then
      events = {}
      for at = 1, #records, record do events[key_at(records, at, offset)] = true end
    end
    return events[event]
  end
  local at = records:find(event, 1, true)
  while at do
    if (at - 1) % record == offset then return true end
    at = records:find(event, at + 1, true)
  end
  return false
end

-- Which of them are new, and whether these name skills or events.
local added, given, left_out, has_skills, has_events = {}, {}, 0, SKILLS_AT[form], EVENT_AT[form]
for at = 1, #new, WIDEST do
  local plain, skills, event = apart("KTH5", new, at)
  if event ~= NONE and (given[event] or is_there(event)) then
    left_out = left_out + 1
  else
    if event ~= NONE then given[event], has_events = true, true end
    if skills ~= NONE then has_skills = true end
    added[#added + 1] = { plain, skills, event }
  end
end
if #added == 0 then return {0, left_out, math.min(held, keep)} end

-- A history of before is read through once, for what it holds.
if form == "KTH1" then
  for at = 1, #held_records(), record do
    local _, skills, event = apart(form, old, at)
    has_skills, has_events = has_skills or skills ~= NONE, has_events or event ~= NONE
  end
end
local as = has_skills and (has_events and "KTH5" or "KTH3") or (has_events and "KTH4" or "KTH2")
for i, parts in ipairs(added) do added[i] = together(as, unpack(parts)) end

local count = held + #added
if record and as == form and count <= keep * 1.25 then
  redis.call("APPEND", KEYS[1], table.concat(added))
  -- To append makes room for as much again. A copy has none; and it is the copy that is kept.
  if redis.pcall("COPY", KEYS[1], KEYS[2], "REPLACE") == 1 then
    local moved = redis.pcall("RENAME", KEYS[2], KEYS[1])
    if moved.err then redis.call("UNLINK", KEYS[2]) end  -- where nobody may rename
  end
else
  -- Another form, or too many: written anew. Not on every call: a quarter of the appends share it.
  local records = held_records()
  if record and as ~= form then
    local anew = {}
    for at = 1, #records, record do anew[#anew + 1] = together(as, apart(form, records, at)) end
    records = table.concat(anew)
  end
  records = records .. table.concat(added)
  if count > keep * 1.25 then
    gone, records = gone + count - keep, records:sub(-keep * RECORD_OF[as])
  end
  if name == NO_NAME then name = ARGV[3] end  -- once they had none
  redis.call("SET", KEYS[1], as .. name .. struct.pack("<I8", gone) .. records)
end
return {#added, left_out, math.min(count, keep)}
