-- Those of the named tasks that fit a filter, in the order they are named. Read-only.
-- KEYS 1 tasks (for the slot)
-- ARGV 1 prefix of task keys (same slot by its tag)  2–10 filter (task_filter.lua)  11… task ids
-- Reply: of each task that fits, its fields and values
local fits = filter_of(ARGV, 2)
local found = {}
for i = 11, #ARGV do
  local task_key = ARGV[1] .. ARGV[i]
  if fits(task_key) then found[#found + 1] = redis.call('HGETALL', task_key) end
end
return found
