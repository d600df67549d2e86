-- What every script here knows of a history: this stands before each of them.
-- A history is 16 bytes of header and then its records, oldest first, all of one size. The header is
-- its form, four bytes that name it, and how many older records are gone.
local HEADER, NO_NAME = 16, string.rep("\0", 4)
local RECORD_OF = { KTH1 = 40, KTH2 = 18, KTH3 = 26, KTH4 = 26, KTH5 = 34 }

-- Returns bytes of a record, form, name, records gone, records held; nil where there is no history,
-- false where it is in no form of ours.
local function history_at(key)
  local size = redis.pcall("STRLEN", key)
  if size == 0 then return nil end
  if type(size) == "table" or size < HEADER then return false end
  local form, name, gone = struct.unpack("<c4c4I8", redis.call("GETRANGE", key, 0, HEADER - 1))
  local record = RECORD_OF[form]
  if not record or (size - HEADER) % record ~= 0 then return false end
  return record, form, name, gone, (size - HEADER) / record
end
