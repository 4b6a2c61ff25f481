-- Put after task_guard.lua, before what reads tasks by filters. A filter is nine ARGV in a row, '' where it lets
-- everything pass: statuses between commas (',pending,error,'), label, indexer, then created, started and ended each
-- from (included) and to (excluded), in microseconds. A task without a start or an end is in no range of it.

-- Ran for each of thousands of tasks: looking a global up would be a fifth of it.
local sub, tonumber = string.sub, tonumber

local function status_test(statuses)
  if statuses == '' then return nil end
  local wanted = {}
  for status in string.gmatch(statuses, '[^,]+') do wanted[status_letters[status] or ''] = true end
  return function(facts) return wanted[sub(facts, 1, 1)] end
end

local function equal_test(first, last, wanted)
  return function(facts) return sub(facts, first, last) == wanted end
end

local function range_test(first, from, to)
  from, to = tonumber(from), tonumber(to)
  if not from and not to then return nil end
  from, to = from or -math.huge, to or math.huge
  local last = first + 17
  return function(facts)
    local at = tonumber(sub(facts, first, last))
    return at and at >= from and at < to
  end
end

-- A function of a task's facts that is true where they fit; nil for the filter that asks nothing.
local function filter_of(args, first)
  local label, indexer = args[first + 1], args[first + 2]
  local tests = {}
  local function add(test) tests[#tests + 1] = test end
  add(status_test(args[first]))
  if label ~= '' then add(equal_test(56, 91, label)) end
  if indexer ~= '' then add(equal_test(92, 92 + #indexer, indexer .. ' ')) end
  add(range_test(2, args[first + 3], args[first + 4]))
  add(range_test(20, args[first + 5], args[first + 6]))
  add(range_test(38, args[first + 7], args[first + 8]))
  if #tests <= 1 then return tests[1] end
  return function(facts)
    for _, test in ipairs(tests) do
      if not test(facts) then return false end
    end
    return true
  end
end
