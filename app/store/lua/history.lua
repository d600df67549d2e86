-- What every script here knows of a history: this stands before each of them.
-- A history is a header and then its records, oldest first, all of one size. The header is its form,
-- four bytes that name it, how many older records are gone, and the newest known time of asking in
-- those that are held (0 for none); in histories of before that last number is missing, and their size tells so.
local HEADER, HEADER_OF_BEFORE, NO_NAME = 24, 16, string.rep("\0", 4)
local RECORD_OF = { KTH1 = 40, KTH2 = 18, KTH3 = 26, KTH4 = 26, KTH5 = 34 }

-- Returns bytes of a record, form, name, records gone, records held, bytes of the header, newest time
-- (nil where the header has none); nil where there is no history, false where it is in no form of ours.
local function history_at(key)
  local size = redis.pcall("STRLEN", key)
  if size == 0 then return nil end
  if type(size) == "table" or size < HEADER_OF_BEFORE then return false end
  local head = redis.call("GETRANGE", key, 0, HEADER - 1)
  local form, name, gone = struct.unpack("<c4c4I8", head)
  local record = RECORD_OF[form]
  if not record then return false end
  if size >= HEADER and (size - HEADER) % record == 0 then
    return record, form, name, gone, (size - HEADER) / record, HEADER, struct.unpack("<I8", head, 17)
  end
  if (size - HEADER_OF_BEFORE) % record ~= 0 then return false end
  return record, form, name, gone, (size - HEADER_OF_BEFORE) / record, HEADER_OF_BEFORE
end
