-- Put before every task_*.lua that changes an existing task. Order of the checks: a master that was replaced learns
-- that first, whatever it asks for.

local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Lua prints large numbers as 1.7e+15; Redis must get every digit.
local function digits(number)
  return string.format('%.0f', number)
end

-- nil where the change may be made, else the refusal. A missing epoch key equals no epoch at all.
local function refusal(epoch_key, epoch, task_key, status, attempt)
  if redis.call('GET', epoch_key) ~= epoch then return 'stale_epoch' end
  local stored = redis.call('HMGET', task_key, 'status', 'attempt')
  if not stored[1] then return 'unknown_task' end
  if attempt and stored[2] ~= attempt then return 'stale_attempt' end
  if stored[1] ~= status then return 'wrong_status' end
  return nil
end

-- The open task that a label's key points to; a key left behind by a lost or ended task points to none.
local function open_task_of(label_key, task_prefix)
  local id = redis.call('GET', label_key)
  if not id then return nil end
  local status = redis.call('HGET', task_prefix .. id, 'status')
  if status == 'pending' or status == 'indexing' then return id end
  return nil
end

local function free_label(label_key, id)
  if redis.call('GET', label_key) == id then redis.call('DEL', label_key) end
end
