-- What was spent. Each answered call is booked once: on its batch, in the books of the day, against the budgets.
-- Money is nano-dollars. A value of '' is unknown, which is not zero.

local DAY = 86400000

-- A time's date in UTC: year, month, day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
local function date_of(now)
  local z = math.floor(now / DAY) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1
end

-- The keys of what was spent in the day and the month of a time.
local function spent_keys(now)
  local year, month, day = date_of(now)
  return string.format('dj:spent:%04d%02d%02d', year, month, day), string.format('dj:spent:%04d%02d', year, month)
end

local function costs_key(now)
  local year, month, day = date_of(now)
  return string.format('dj:costs:%04d%02d%02d', year, month, day)
end

-- Add to a number of a hash. Answers the sum; nil where it would not fit 64 bits: it then stays as it is, for that must
-- not stop a transition half way.
local function add(key, field, amount)
  local sum = redis.pcall('HINCRBY', key, field, string.format('%.0f', amount))
  if type(sum) ~= 'table' then return sum end
end

-- Sums of numbers of hashes to be added to, so that jobs that end together are counted together.
local function bump(sums, key, field, amount)
  local fields = sums[key] or {}
  fields[field] = (fields[field] or 0) + amount
  sums[key] = fields
end

local function add_all(sums)
  for key, fields in pairs(sums) do
    for field, amount in pairs(fields) do
      if amount ~= 0 then add(key, field, amount) end
    end
  end
end

-- How long what was spent is kept, in milliseconds.
local function lifetime_of_books() return redis.call('HGET', 'dj:budgets', 'kept') or 400 * DAY end

-- What is kept of a variant as a whole, for comparing it with others of its program.
local OF_A_VARIANT = {jobs = true, failed = true, hit = true, coalesced = true, calls = true, cost = true,
  unpriced = true, lost = true}

local function variant_key(f) return 'dj:variant:' .. f.program .. ':' .. f.variant end

-- Add to the books of a day (`books`), under the job's model, variant, program and client, and to the numbers of its
-- variant, if it has one.
local function bump_books(sums, books, f, metric, amount)
  bump(sums, books, f.model .. '|' .. f.variant .. '|' .. f.program .. '|' .. f.client .. '|' .. metric, amount)
  if f.variant ~= '' and OF_A_VARIANT[metric] then bump(sums, variant_key(f), metric, amount) end
end

-- Count how long a job of a variant ran, in milliseconds: the sum, and a histogram whose buckets grow by a constant
-- factor, so that any quantile can be told to 2 % (Masson, Rim and Lee, "DDSketch", VLDB 2019).
local function bump_latency(sums, f, elapsed)
  if f.variant == '' then return end
  bump(sums, variant_key(f), 'run_ms', elapsed)
  bump(sums, variant_key(f), 'b' .. math.ceil(math.log(math.max(1, elapsed)) / math.log(1.02 / 0.98)), 1)
end

-- Add to the books of a day. They have no lifetime before they are closed (fold_books.lua), so that nothing is gone
-- that is not in the totals; with their first entries they are put on the list of those that are to be closed.
local function add_to_day(books, fields)
  local is_new = false
  for field, amount in pairs(fields) do
    if amount ~= 0 and add(books, field, amount) == amount then is_new = true end
  end
  if is_new then redis.call('SADD', 'dj:open_books', books:sub(10)) end
end

-- Add sums that go into the books, too. The numbers of a variant stay as long after the last of it as the books do.
local function add_to_books(sums, now)
  local books = costs_key(now)
  add_to_day(books, sums[books] or {})
  sums[books] = nil
  add_all(sums)
  for key in pairs(sums) do
    if key:sub(1, 11) == 'dj:variant:' then redis.call('PEXPIRE', key, lifetime_of_books()) end
  end
end

-- Count money against the budgets of the day and the month.
local function spend(f, now, cost)
  if cost == 0 then return end
  for _, key in ipairs({spent_keys(now)}) do
    local is_new = add(key, '*', cost) == cost
    if is_new and redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, lifetime_of_books()) end
    add(key, f.client, cost)
  end
end

-- The sums of calls given as ARGV[at] the number of the first, ARGV[at + 1] how many, then seven values each: tokens
-- in, out, cached in, of reasoning, cost, '1' if counted here, journal. Calls up to number `booked` are passed over.
local function sums_of_calls(at, booked)
  local s = {calls = 0, input_tokens = 0, output_tokens = 0, cached_input_tokens = 0, reasoning_tokens = 0, cost = 0,
    unpriced = 0, untokened = 0, estimated = 0}
  local metrics, journal = {'input_tokens', 'output_tokens', 'cached_input_tokens', 'reasoning_tokens', 'cost'}, {}
  local first, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  for n = math.max(first, booked + 1), first + count - 1 do
    local v = at + 2 + (n - first) * 7
    for i, metric in ipairs(metrics) do s[metric] = s[metric] + (tonumber(ARGV[v + i - 1]) or 0) end
    s.calls = s.calls + 1
    if ARGV[v] == '' or ARGV[v + 1] == '' then s.untokened = s.untokened + 1 end
    if ARGV[v + 4] == '' then s.unpriced = s.unpriced + 1 end
    if ARGV[v + 5] == '1' then s.estimated = s.estimated + 1 end
    if ARGV[v + 6] ~= '' then journal[#journal + 1] = ARGV[v + 6] end
  end
  return s, first + count - 1, journal
end

-- Book an attempt's calls: into `sums` for its batch and the books, and against the budgets. Those for the job's next
-- attempt to replay are kept in its journal. Answers the sums of the calls and the number of the last.
local function book(id, f, at, now, sums)
  local s, last, journal = sums_of_calls(at, f.booked)
  for _, record in ipairs(journal) do redis.call('RPUSH', 'dj:' .. id .. ':journal', record) end
  if #journal > 0 then f.answered = redis.call('HINCRBY', 'dj:' .. id, 'answered', #journal) end
  local books = costs_key(now)
  for metric, amount in pairs(s) do bump_books(sums, books, f, metric, amount) end
  if f.batch ~= '' then
    for _, metric in ipairs({'calls', 'input_tokens', 'output_tokens', 'cost', 'unpriced', 'untokened'}) do
      bump(sums, 'dj:' .. f.batch, metric, s[metric])
    end
  end
  spend(f, now, s.cost)
  return s, last
end

-- The code of the problem that an outcome tells of.
local function code_of(outcome)
  local is_json, told = pcall(cjson.decode, outcome)
  local problem = is_json and type(told) == 'table' and told.problem
  local code = type(problem) == 'table' and problem.code
  return type(code) == 'string' and code:match('^[%w_]+$') or 'other'
end

-- Count what the books do not tell of a job that has ended, straight in the totals: the rarer endings, and why it failed.
local function count_unbooked(sums, f, status, outcome)
  if status == 'failed' then
    bump(sums, 'dj:counted', 'error|' .. f.model .. '|' .. code_of(outcome), 1)
  elseif status ~= 'succeeded' then
    bump(sums, 'dj:counted', f.model .. '|' .. f.variant .. '|' .. f.program .. '|' .. status, 1)
  end
end

-- Count a job that has ended, in the books (`key`) and on its batch: how it came by its output, and what that saved.
-- `use` is nil, or {how = 'hit' | 'coalesced' | 'miss' | 'bypass', saved = nano-dollars or ''}.
local function count_ending(sums, key, f, status, use)
  if status ~= 'succeeded' and status ~= 'failed' then return end
  local is_stored = use and (use.how == 'hit' or use.how == 'coalesced')
  local saved = is_stored and tonumber(use.saved) or 0
  bump_books(sums, key, f, 'jobs', 1)
  if status == 'failed' then bump_books(sums, key, f, 'failed', 1) end
  if is_stored then
    bump_books(sums, key, f, use.how, 1)
    bump_books(sums, key, f, 'saved', saved)
    if use.saved == '' then bump_books(sums, key, f, 'unsaved', 1) end
  end
  if f.batch == '' or not use then return end
  local batch = 'dj:' .. f.batch
  bump(sums, batch, use.how, 1)
  if is_stored then
    bump(sums, batch, 'cached', 1)
    bump(sums, batch, 'saved', saved)
    if use.saved == '' then bump(sums, batch, 'unsaved', 1) end
  end
end

-- A mean that forgets: of the first values the plain mean, then each new one counts a sixteenth. `n` counts the new one.
local function mean_of(old, new, n)
  local before = tonumber(old or new)
  return before + (new - before) / math.min(n, 16)
end

-- Runs of a queue after which their number is no longer counted: by then the mean has forgotten how it began.
local MOST_SAMPLES = 100

-- Remember how long a job's run took and what it cost, for reservations, estimates and scaling. A run without a call, or
-- of unknown cost, says nothing of what the next one will cost.
local function note_pace(f, elapsed, s)
  local key = 'dj:queue:' .. f.queue
  local old = redis.call('HMGET', key, 'service_ms', 'service_n', 'mean_cost', 'cost_n')
  local runs, priced = tonumber(old[2] or '0') + 1, tonumber(old[4] or '0') + 1
  redis.call('HSET', key, 'service_ms', string.format('%.3f', mean_of(old[1], elapsed, runs)),
    'service_n', math.min(MOST_SAMPLES, runs))
  if s.unpriced == 0 and s.calls > 0 then
    redis.call('HSET', key, 'mean_cost', string.format('%.0f', mean_of(old[3], s.cost, priced)),
      'cost_n', math.min(MOST_SAMPLES, priced))
  end
end

-- Whether there is any budget at all.
local function has_budgets()
  return tonumber(redis.call('HGET', 'dj:budgets', 'limits') or '0') > 0
end

-- Whether a budget of `who` ('*' for all) is used up, with `reserved` counted as spent: the time it is there again.
-- Of a budget that is whole one job may start, whatever the mean says: only running one can change that.
local function exhausted(who, reserved, now, is_idle)
  local limits = redis.call('HMGET', 'dj:budgets', 'day ' .. who, 'month ' .. who)
  if not limits[1] and not limits[2] then return nil end
  local keys, ends = {spent_keys(now)}, nil
  for i, limit in pairs({tonumber(limits[1]) or false, tonumber(limits[2]) or false}) do
    local spent = limit and tonumber(redis.call('HGET', keys[i], who) or '0')
    local is_over = limit and (spent >= limit or spent + reserved > limit and not (is_idle and spent == 0))
    if is_over then ends = i end
  end
  if not ends then return nil end
  local _, month = date_of(now)
  local over = (math.floor(now / DAY) + 1) * DAY
  while ends == 2 and select(2, date_of(over)) == month do over = over + DAY end
  return over
end

-- What the jobs that run, and one more of a queue, will cost by the mean of each queue.
local function reserve_of(queue)
  local sum = tonumber(redis.call('HGET', 'dj:queue:' .. queue, 'mean_cost') or '0')
  for _, name in ipairs(redis.call('HKEYS', 'dj:budgets')) do
    if name:sub(1, 6) == 'queue ' then
      local v = redis.call('HMGET', 'dj:queue:' .. name:sub(7), 'running', 'mean_cost')
      sum = sum + tonumber(v[1] or '0') * tonumber(v[2] or '0')
    end
  end
  return sum
end

-- Whether the budget of all leaves no room for one more job of a queue beside those that run.
local function is_spent(queue, now)
  local is_idle = (tonumber(redis.call('HGET', 'dj:totals', 'running') or '0')) == 0
  return has_budgets() and exhausted('*', reserve_of(queue), now, is_idle) or false
end

-- The same for the budget of a job's client: its own jobs that run count at the mean of this one's queue.
local function is_client_spent(f, now)
  if not has_budgets() then return nil end
  local running = tonumber(redis.call('HGET', 'dj:totals', 'running ' .. f.client) or '0')
  local mean = tonumber(redis.call('HGET', 'dj:queue:' .. f.queue, 'mean_cost') or '0')
  return exhausted(f.client, (running + 1) * mean, now, running == 0)
end
