-- Add records to a user's history: all of them, but for those whose event key is there already.
-- KEYS, ARGV 1-5: see change.lua; ARGV 6: records in the widest form, 7: what becomes of those that are
-- late ("append", "refuse", "insert"), 8: seconds that the history lives then, 0 for ever, 9: how many
-- arguments behind it are texts: key, text, ... Then, where forecasts are compared with what is added:
-- seconds for which one counts, most outcomes in a ring, and keys of models.
-- KEYS behind those of change.lua: of texts, where there are any; of the user's forecasts; of the rings
-- of these models.
-- Returns {records added, duplicates left out, records kept now, version, late ones}, and behind them,
-- where forecasts were met, how many outcomes have been put into rings, and key and outcome of each
-- that has not; or "reused", "changed", "late" and how many are.
-- A record is late where its question was asked before the newest known time that comes before it.
local WIDEST = RECORD_OF.KTH5
local A_FEW = 8  -- for these a history is searched; for more, its events are put in a table
local new, late_rule, life_s = ARGV[6], ARGV[7], tonumber(ARGV[8])
local last_text = 9 + ARGV[9]
local FORECASTS = last_text > 9 and 5 or 4
local before = answered_before()
if before then return before end
local record, form, name, gone, held, header, newest, is_there = history()
if record == false then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
if not is_meant(name, gone + held, is_there) then return {"changed"} end

local old  -- records held; read where they are wanted
local function held_records()
  old = old or (is_there and redis.call("GETRANGE", KEYS[1], header, -1) or "")
  return old
end

local events
local function is_known(event)
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

-- A history of before is written anew, in a form of now.
local is_anew = header ~= HEADER or form == "KTH1"
if is_anew then
  local as = form_for(form, held_records())
  newest = newest_in(as, table.concat(records_as(as, form, old)))
end

-- Which of them are new, which of these late, and whether they name skills or events. Of each: plain
-- part, skills, event, time, place.
local added, late, given, left_out, has_skills, has_events = {}, {}, {}, 0, false, false
local answers = {}  -- their plain parts, as they came
local newest_before = newest
for at = 1, #new, WIDEST do
  local plain, skills, event = apart("KTH5", new, at)
  if event ~= NONE and (given[event] or is_known(event)) then
    left_out = left_out + 1
  else
    if event ~= NONE then given[event], has_events = true, true end
    if skills ~= NONE then has_skills = true end
    local asked = asked_at(new, at)
    local one = { plain, skills, event, asked, at }
    answers[#answers + 1] = plain
    if asked < newest then late[#late + 1] = one end
    if asked >= newest and asked ~= NO_TIME then newest = asked end
    if late_rule ~= "insert" or late[#late] ~= one then added[#added + 1] = one end
  end
end
if #late > 0 and late_rule == "refuse" then return {"late", #late} end
-- Here, in the first of all writes: a server that has no room refuses it, and all that would follow.
for i = 10, last_text, 2 do redis.call("HSETNX", KEYS[4], ARGV[i], ARGV[i + 1]) end
local more = late_rule == "insert" and #added + #late or #added
local count, total = held + more, gone + held + more
if more == 0 then
  return answered({0, left_out, math.min(held, keep), version_of(name, total), 0})
end

local as = form
if is_anew or has_skills or has_events then
  as = form_for(form, old or "", has_skills, has_events)
end
for i, parts in ipairs(added) do added[i] = together(as, parts[1], parts[2], parts[3]) end

-- Late ones go before the first that is known to have been asked after them; those of the same time,
-- as they came. What is made of a history that is not gone on with at its end is of another history.
local function with_late(records)
  table.sort(late, function(a, b)
    return a[4] < b[4] or a[4] == b[4] and a[5] < b[5]
  end)
  for i, one in ipairs(late) do late[i] = { together(as, one[1], one[2], one[3]), one[4] } end
  local merged, next_late = {}, 1
  for i, one in ipairs(records) do
    local asked = asked_at(one, 1)
    while late[next_late] and asked ~= NO_TIME and late[next_late][2] < asked do
      if i <= held then name = NO_NAME end
      merged[#merged + 1] = late[next_late][1]
      next_late = next_late + 1
    end
    merged[#merged + 1] = one
  end
  for i = next_late, #late do merged[#merged + 1] = late[i][1] end
  return merged
end

local is_inserting = late_rule == "insert" and #late > 0
if is_there and not is_anew and not is_inserting and as == form and count <= keep * 1.25 then
  redis.call("APPEND", KEYS[1], table.concat(added))
  if newest ~= newest_before then
    redis.call("SETRANGE", KEYS[1], HEADER - 8, struct.pack("<I8", newest))
  end
  -- To append makes room for as much again. A copy has none; and it is the copy that is kept.
  if redis.pcall("COPY", KEYS[1], KEYS[2], "REPLACE") == 1 then
    local moved = redis.pcall("RENAME", KEYS[2], KEYS[1])
    if moved.err then redis.call("UNLINK", KEYS[2]) end  -- where nobody may rename
  end
  if life_s == 0 then redis.call("PERSIST", KEYS[1]) end  -- it may have been another rule's
else
  -- Another form, or an order of its own, or too many: written anew. Not on every call: a quarter of
  -- the appends share it.
  local records = held_records()
  if is_inserting then
    local all = records_as(as, form, records)
    for _, one in ipairs(added) do all[#all + 1] = one end
    records = table.concat(with_late(all))
  else
    if as ~= form then records = table.concat(records_as(as, form, records)) end
    records = records .. table.concat(added)
  end
  if count > keep * 1.25 then
    gone, records = gone + count - keep, records:sub(-keep * RECORD_OF[as])
    newest = newest_in(as, records)  -- nobody is late after what is there no more
  end
  if name == NO_NAME then name = NEW_NAME end
  redis.call("SET", KEYS[1], header_of(as, name, gone, newest) .. records)
end
if life_s > 0 then redis.call("EXPIRE", KEYS[1], life_s) end

-- Compare forecasts with what has been added. The answers stand: whatever fails here is told behind
-- the answer, and is no part of what the same call is answered again.
local answer = answered({more, left_out, math.min(count, keep), version_of(name, total), #late})
if not KEYS[FORECASTS] then return answer end
local within_s, most = tonumber(ARGV[last_text + 1]), tonumber(ARGV[last_text + 2])
local models, outcomes = joined(KEYS[FORECASTS], answers, within_s)
if #models == 0 then return answer end
local ring_of, not_put = {}, {}
for i = 1, #KEYS - FORECASTS do ring_of[ARGV[last_text + 2 + i]] = KEYS[FORECASTS + i] end
local has_put = 0
for _, model in ipairs(models) do
  if ring_of[model] and put(ring_of[model], most, outcomes[model]) then
    has_put = has_put + #outcomes[model]
  else
    for _, one in ipairs(outcomes[model]) do not_put[#not_put + 1] = model .. one end
  end
end
answer[#answer + 1] = has_put
for _, one in ipairs(not_put) do answer[#answer + 1] = one end
return answer
