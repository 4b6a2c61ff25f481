-- Put before what reads tasks by filters. A filter is nine ARGV in a row, '' where it lets everything pass:
-- statuses between commas (',pending,error,'), label, indexer, then created, started and ended each from (included)
-- and to (excluded), in microseconds. A task without a start or an end is in no range of it.

local function within(stored, from, to)
  if not from and not to then return true end
  local at = tonumber(stored or '')
  return at ~= nil and (not from or at >= from) and (not to or at < to)
end

-- A function of a task key: true where the task fits, false where it does not, nil where there is no record.
local function filter_of(args, first)
  local statuses, label, indexer = args[first], args[first + 1], args[first + 2]
  local bounds = {}
  for i = 1, 6 do bounds[i] = tonumber(args[first + 2 + i]) end
  return function(task_key)
    local task = redis.call('HMGET', task_key, 'status', 'list_id', 'indexer', 'create_us', 'start_us', 'end_us')
    if not task[1] then
      if redis.call('EXISTS', task_key) == 0 then return nil end
      return false
    end
    return (statuses == '' or string.find(statuses, ',' .. task[1] .. ',', 1, true) ~= nil)
      and (label == '' or task[2] == label)
      and (indexer == '' or task[3] == indexer)
      and within(task[4], bounds[1], bounds[2])
      and within(task[5], bounds[3], bounds[4])
      and within(task[6], bounds[5], bounds[6])
  end
end
