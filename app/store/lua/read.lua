-- Read a run of a user's records. Numbers count from the user's very first record, which is 0.
-- KEYS[1] the history; ARGV: number to begin at ("" for the newest ones), most records, most kept.
-- Returns {records, number of the first one, records kept, number after the newest one, their form,
-- name of the history}.
local record, form, name, gone, held, header = history_at(KEYS[1])
if record == nil then return {"", 0, 0, 0, 2, NO_NAME} end
if not record then
  return redis.error_reply("KTCORRUPT the history is not in a form that was written here")
end
local total, kept = gone + held, math.min(held, tonumber(ARGV[3]))
local first = total - math.min(kept, tonumber(ARGV[2]))
if ARGV[1] ~= "" then first = math.max(tonumber(ARGV[1]), total - kept) end
local count = math.max(0, math.min(tonumber(ARGV[2]), total - first))
local from = header + (first - gone) * record
local records = count > 0 and redis.call("GETRANGE", KEYS[1], from, from + count * record - 1) or ""
return {records, first, kept, total, tonumber(form:sub(4)), name}
