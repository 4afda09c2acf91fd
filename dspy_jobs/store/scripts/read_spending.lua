-- Read the budgets and what of them is spent: {budgets, then for the day and the month who has one and what they have
-- spent}. Of clients without a budget nothing is read. ARGV: now.
local now, budgets = clock(ARGV[1]), redis.call('HGETALL', 'dj:budgets')
local named = {['*'] = true}
for i = 1, #budgets, 2 do
  local who = budgets[i]:match('^day (.+)$') or budgets[i]:match('^month (.+)$')
  if who then named[who] = true end
end
local found = {budgets}
for i, key in ipairs({spent_keys(now)}) do
  local spent = {}
  for who in pairs(named) do
    spent[#spent + 1] = who
    spent[#spent + 1] = redis.call('HGET', key, who) or '0'
  end
  found[i + 1] = spent
end
return found
