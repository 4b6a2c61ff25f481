-- Put before what reads tasks by filters. A filter is nine ARGV in a row, '' where it lets everything pass:
-- statuses between commas (',pending,error,'), label, indexer, then created, started and ended each from (included)
-- and to (excluded), in microseconds. A task without a start or an end is in no range of it.

local function range_test(from, to)
  from, to = tonumber(from), tonumber(to)
  if not from and not to then return nil end
  return function(stored)
    local at = tonumber(stored)
    return at ~= nil and (not from or at >= from) and (not to or at < to)
  end
end

local function equal_test(wanted)
  if wanted == '' then return nil end
  return function(stored) return stored == wanted end
end

-- A function of a task key: true where the task fits, nil where it lacks what is asked for (there may be no record),
-- else false. The filter that asks nothing lets everything pass, record or not.
local function filter_of(args, first)
  local statuses = args[first]
  local wanted = {
    { 'status', statuses ~= '' and function(stored) return string.find(statuses, ',' .. stored .. ',', 1, true) ~= nil end },
    { 'list_id', equal_test(args[first + 1]) },
    { 'indexer', equal_test(args[first + 2]) },
    { 'create_us', range_test(args[first + 3], args[first + 4]) },
    { 'start_us', range_test(args[first + 5], args[first + 6]) },
    { 'end_us', range_test(args[first + 7], args[first + 8]) },
  }
  -- Reading a field of a thousand records is what costs here, so only those asked for are.
  local fields, tests = {}, {}
  for _, pair in ipairs(wanted) do
    if pair[2] then
      fields[#fields + 1] = pair[1]
      tests[#tests + 1] = pair[2]
    end
  end
  if #fields == 0 then return function() return true end end
  return function(task_key)
    local stored = redis.call('HMGET', task_key, unpack(fields))
    for i, test in ipairs(tests) do
      if not stored[i] then return nil end
      if not test(stored[i]) then return false end
    end
    return true
  end
end
