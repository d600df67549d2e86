-- What the scripts that compare forecasts with answers have in common: this stands before them.
-- A forecast is what a model has said of a question to a user, kept until it is answered: key of the
-- question, key of the model, Unix time it was kept at, then what goes over into an outcome.
-- An outcome is 16 bytes: chance of a right answer, skill, lag, length, whether it was right, a byte of
-- nothing, Unix time of the answer. The newest outcomes of a model lie in a ring: a header with their
-- most and how many there ever were, then the outcomes, each over the one before it by their most.
local FORECAST, OUTCOME, RING_HEADER, NO_QUESTION = 32, 16, 16, string.rep("\0", 8)
local RING_LIFE_S = 90 * 86400  -- of models that are served no more

local function is_error(found) return type(found) == "table" and found.err end

-- Put outcomes into a ring; false where the store takes none.
local function put(ring, most, outcomes)
  local mark = "KTQ1" .. struct.pack("<I4", most)
  local header, total = redis.pcall("GETRANGE", ring, 0, RING_HEADER - 1), 0
  if is_error(header) then return false end
  if #header == RING_HEADER and header:sub(1, 8) == mark then
    total = struct.unpack("<I8", header, 9)
  elseif is_error(redis.pcall("SET", ring, mark .. struct.pack("<I8", 0))) then
    return false
  end
  for _, outcome in ipairs(outcomes) do
    local at = RING_HEADER + total % most * OUTCOME
    if is_error(redis.pcall("SETRANGE", ring, at, outcome)) then return false end
    total = total + 1
  end
  redis.pcall("SETRANGE", ring, 8, struct.pack("<I8", total))
  redis.pcall("EXPIRE", ring, RING_LIFE_S)
  return true
end

-- Take the forecasts of questions that have been answered, and return what became of them: of each
-- model's the newest, where it is not older than it may be. `answers` are plain parts of records.
-- Returns models, in order, and a model's outcomes by its key.
local function joined(forecasts, answers, within_s)
  local models, outcomes = {}, {}
  local kept = redis.pcall("GETRANGE", forecasts, 0, -1)
  if is_error(kept) or #kept == 0 or #kept % FORECAST > 0 then return models, outcomes end
  local is_right, newest, order, met, others = {}, {}, {}, {}, 0
  for _, answer in ipairs(answers) do
    local question = answer:sub(1, 8)
    if is_right[question] == nil then is_right[question] = answer:byte(18) >= 128 end
  end
  for at = 1, #kept, FORECAST do
    local question = kept:sub(at, at + 7)
    if is_right[question] ~= nil then
      local of = kept:sub(at, at + 15)
      if not newest[of] then order[#order + 1] = of end
      newest[of], met[#met + 1] = at, at
    elseif question ~= NO_QUESTION then
      others = others + 1
    end
  end
  if others == 0 then
    redis.call("UNLINK", forecasts)
  else
    for _, at in ipairs(met) do redis.pcall("SETRANGE", forecasts, at - 1, NO_QUESTION) end
  end
  local now_s = tonumber(redis.call("TIME")[1])
  for _, of in ipairs(order) do
    local at, model = newest[of], of:sub(9)
    if struct.unpack("<I4", kept, at + 16) + within_s >= now_s then
      if not outcomes[model] then models[#models + 1], outcomes[model] = model, {} end
      local right = string.char(is_right[of:sub(1, 8)] and 1 or 0, 0)
      table.insert(outcomes[model], kept:sub(at + 20, at + 29) .. right .. struct.pack("<I4", now_s))
    end
  end
  return models, outcomes
end
