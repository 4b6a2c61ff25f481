-- Put before every task_*.lua that reads or changes a record. Order of the checks of `refusal`: a master that was
-- replaced learns that first, whatever it asks for.

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

-- The facts of a task are what filters compare, as one text, kept in a sorted set by the task's score in `tasks`: to
-- walk them is one command for a thousand tasks, to walk records is a thousand. Derived from the record alone, so that
-- whatever changes a record ends with `note_facts`.
-- Layout: 1 status  2–19 create_us  20–37 start_us  38–55 end_us  56–91 list_id  92… indexer, a blank, task id. Blanks
-- stand for what is absent; 18 characters hold every time of RFC 3339.
local status_letters = { pending = 'p', indexing = 'i', success = 's', error = 'e' }

-- The facts of a record; nil where there is none. Of one that does not have the layout (no reader takes it for a task)
-- they fit no filter.
local function facts_of(task_key, id)
  local task = redis.call('HMGET', task_key, 'status', 'create_us', 'start_us', 'end_us', 'list_id', 'indexer')
  if not task[1] then return nil end
  local letter, indexer = status_letters[task[1]], task[6] or ''
  local fixed = string.format('%s%18s%18s%18s%36s', letter or '?', task[2] or '', task[3] or '', task[4] or '', task[5] or '')
  if not letter or #fixed ~= 91 or string.find(indexer, ' ', 1, true) then
    fixed, indexer = '?' .. string.rep(' ', 90), ''
  end
  return fixed .. indexer .. ' ' .. id
end

-- No two tasks share a score, so the score names a task's facts, whatever they were.
local function drop_facts(tasks_key, facts_key, id)
  local score = redis.call('ZSCORE', tasks_key, id)
  if score then redis.call('ZREMRANGEBYSCORE', facts_key, score, score) end
  return score
end

local function note_facts(tasks_key, facts_key, task_key, id)
  local score = drop_facts(tasks_key, facts_key, id)
  local facts = score and facts_of(task_key, id)
  if facts then redis.call('ZADD', facts_key, score, facts) end
end

-- Records of a reply as one JSON text: strings one by one cost more than half of reading them.
local function packed(records)
  return #records > 0 and cjson.encode(records) or '[]'
end
