-- Those of the named tasks that fit a filter, in the order they are named. Read-only.
-- KEYS 1 tasks (for the slot)
-- ARGV 1 prefix of task keys (same slot by its tag)  2–10 filter (task_filter.lua)  11… task ids
-- Reply: of each task that fits, its fields and values, packed
local fits = filter_of(ARGV, 2)
local found = {}
for i = 11, #ARGV do
  local task_key = ARGV[1] .. ARGV[i]
  local facts = facts_of(task_key, ARGV[i])
  if facts and (not fits or fits(facts)) then found[#found + 1] = redis.call('HGETALL', task_key) end
end
return packed(found)
