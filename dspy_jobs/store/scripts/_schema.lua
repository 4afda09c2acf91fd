-- Put before every script: keys, the clock, and the few moves that all transitions are made of.
-- Keys and their lifetimes are listed in dspy_jobs/names.py. Times are milliseconds since 1970.

local TERMINAL = {succeeded = true, failed = true, canceled = true, expired = true}

local end_flight -- in _flights.lua

-- One clock for all hosts: Redis's own. Tests pass theirs.
local function clock(given)
  if given and given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(number) return string.format('%.0f', number) end

local function job_key(id) return 'dj:' .. id end
local function batch_key(id) return 'dj:' .. id end
local function queue_key(queue) return 'dj:queue:' .. queue end
local function held_key(worker) return 'dj:worker:' .. worker .. ':held' end
local function cancel_key(worker) return 'dj:worker:' .. worker .. ':cancel' end
local function outcome_key(id) return 'celery-task-meta-' .. id end

local function waiting_key(queue, step) return queue_key(queue) .. ':waiting:' .. step end

local function queue_list(queue, step)
  if step == '0' then return queue end
  return queue .. ':' .. step
end

-- A Celery message (task protocol 2) for one or more jobs. TEMPLATE has the slots @ID@, @ARGS@ and @TAG@.
-- The tag ends in the time it was sent, or in 0 if it went to the front of the queue.
local function message(ids, sent)
  local quoted = {}
  for i, id in ipairs(ids) do quoted[i] = '\\"' .. id .. '\\"' end
  local name = ids[1]
  if #ids > 1 then name = 'chunk-' .. #ids .. '-' .. ids[1] end
  local tag = redis.call('HINCRBY', 'dj:totals', 'messages', 1)
  local filled = TEMPLATE:gsub('@ID@', name):gsub('@TAG@', tag .. '@' .. sent):gsub('@ARGS@', table.concat(quoted, ','))
  return filled
end

-- Send jobs to the workers: they wait from now on, and a message says so. `front` lets them be next.
local function send(queue, step, ids, now, front)
  if #ids == 0 then return end
  local waiting = {}
  for _, id in ipairs(ids) do
    waiting[#waiting + 1] = now
    waiting[#waiting + 1] = id
  end
  redis.call('ZADD', waiting_key(queue, step), unpack(waiting))
  redis.call(front and 'RPUSH' or 'LPUSH', queue_list(queue, step), message(ids, front and '0' or ms(now)))
end

-- Count jobs of a batch that wait for a worker, or do so no more: what a pause takes from its queue's demand.
local function count_waiting(f, number)
  if f.batch ~= '' then redis.call('HINCRBY', batch_key(f.batch), 'waiting ' .. f.queue, number) end
end

-- Send one job.
local function send_job(id, f, now, front)
  send(f.queue, f.priority, {id}, now, front)
  count_waiting(f, 1)
end

-- A queued job waits for no worker any more, if it did.
local function stop_waiting(id, f)
  if redis.call('ZREM', waiting_key(f.queue, f.priority), id) == 1 then count_waiting(f, -1) end
end

-- What a worker holds, newest first: sent to the front in this order, the oldest is next.
local function held_by(worker)
  local ids = redis.call('SMEMBERS', held_key(worker))
  table.sort(ids, function(a, b) return a > b end)
  return ids
end

-- Put a job with others of its queue and priority, then send each group in chunks.
local function add_to_group(groups, id, f)
  local name = f.queue .. '\0' .. f.priority
  local group = groups[name] or {queue = f.queue, priority = f.priority, ids = {}, batches = {}}
  table.insert(group.ids, id)
  group.batches[f.batch] = (group.batches[f.batch] or 0) + 1
  groups[name] = group
end

local function send_groups(groups, size, now, front)
  for _, group in pairs(groups) do
    for at = 1, #group.ids, size do
      local chunk = {unpack(group.ids, at, math.min(at + size - 1, #group.ids))}
      send(group.queue, group.priority, chunk, now, front)
    end
    for batch, number in pairs(group.batches) do count_waiting({batch = batch, queue = group.queue}, number) end
  end
end

-- The strongest reason why a queue is closed now, and until when (0: until somebody opens it); nil if it is open.
-- An open circuit whose time is over is half-open: still closed, with until in the past.
local function gate_of(queue, now)
  local v = redis.call('HMGET', queue_key(queue) .. ':gates', 'paused', 'circuit_open', 'rate_limited')
  v = {v[1], is_spent(queue, now), v[2], v[3]}
  for i, reason in ipairs({'paused', 'budget_exhausted', 'circuit_open', 'rate_limited'}) do
    local ends = tonumber(v[i] or nil)
    if ends and (ends == 0 or ends > now or reason == 'circuit_open') then return reason, ends end
  end
  return nil, 0
end

-- Whether as many jobs of a queue run as may at once.
local function is_full(queue)
  local n = redis.call('HMGET', queue_key(queue), 'most', 'running')
  local most = tonumber(n[1] or '0')
  return most > 0 and tonumber(n[2] or '0') >= most
end

-- The same for people: a queue whose jobs must wait for others of it to end counts as closed.
local function shown_gate(queue, now)
  local reason, ends = gate_of(queue, now)
  if not reason and is_full(queue) then return 'rate_limited', 0 end
  return reason, ends
end

-- From here on a batch's error rate counts only what is to come: somebody who knows of its failures lets it go on.
local function count_failures_anew(batch)
  local b = redis.call('HMGET', batch_key(batch), 'limit_error_rate', 'failed', 'succeeded')
  if not b[1] then return end
  redis.call('HSET', batch_key(batch), 'rate_from_failed', b[2], 'rate_from_done', ms(b[2] + b[3]))
end

-- Move one job from one state to another in the sums of every count that knows it.
local function bump_states(sums, f, from, to)
  for name, amount in pairs({[from] = -1, [to] = 1}) do
    if name == 'queued' or name == 'running' then
      bump(sums, queue_key(f.queue), name, amount)
      bump(sums, 'dj:totals', name, amount)
    end
    if name == 'running' then bump(sums, 'dj:totals', 'running ' .. f.client, amount) end
    if f.batch ~= '' then bump(sums, batch_key(f.batch), name, amount) end
  end
end

-- The same at once.
local function recount(f, from, to)
  local sums = {}
  if from ~= to then bump_states(sums, f, from, to) end
  add_all(sums)
end

-- Move a queued or running job to another model and its queue; remembers the models it has left.
local function fall_back(id, f, model)
  local key = job_key(id)
  local left = redis.call('HGET', key, 'fallen')
  redis.call('HSET', key, 'model', model, 'queue', 'dspy.' .. model, 'tries', 0, 'limited', 0,
    'fallen', (left and left .. ',' or '') .. f.model)
  for _, name in ipairs({'queued', 'running'}) do
    if f.status == name then
      redis.call('HINCRBY', queue_key(f.queue), name, -1)
      redis.call('HINCRBY', queue_key('dspy.' .. model), name, 1)
    end
  end
  f.queue, f.model = 'dspy.' .. model, model
end

-- Close a batch when nothing of it is queued or running, and tell who waits.
local function end_batch_if_done(batch, now)
  local key = batch_key(batch)
  local b = redis.call('HMGET', key, 'status', 'queued', 'running', 'retention', 'expired', 'total', 'tombstone')
  if not b[1] or b[1] == 'ended' or tonumber(b[2]) > 0 or tonumber(b[3]) > 0 then return end
  local reason = 'completed'
  if b[1] == 'canceling' then reason = 'canceled' elseif b[5] == b[6] and b[6] ~= '0' then reason = 'expired' end
  redis.call('HSET', key, 'status', 'ended', 'ended_reason', reason, 'ended_at', ms(now))
  redis.call('PEXPIRE', key, tonumber(b[4]) + tonumber(b[7]))
  for _, part in ipairs({':request', ':jobs', ':results'}) do redis.call('PEXPIRE', key .. part, b[4]) end
  redis.call('DEL', key .. ':parked')
  redis.call('SREM', 'dj:releasing', batch)
  redis.call('SREM', 'dj:canceling', batch)
  redis.call('SREM', 'dj:paused_batches', batch)
  redis.call('ZREM', 'dj:expiring', batch)
  redis.call('PUBLISH', 'dj:done', batch)
end

-- Jobs that must have run before a batch's error rate counts, where it does not say: DEFAULT_MIN_ITEMS of
-- dspy_jobs/submissions.py.
local DEFAULT_MIN_ITEMS = 20

-- What a batch has spent, and what that will be with what runs and one job more, reckoned at the mean cost of what has
-- run; before anything has, at its queue's.
local function cost_ahead(batch)
  local b = redis.call('HMGET', batch_key(batch), 'cost', 'running', 'succeeded', 'failed', 'cached', 'queue')
  local n = {}
  for i = 1, 5 do n[i] = tonumber(b[i] or '0') end
  local ran = n[3] + n[4] - n[5]
  local mean = ran > 0 and n[1] / ran
    or tonumber(redis.call('HGET', queue_key(b[6]:match('[^,]+')), 'mean_cost') or '0')
  return n[1], n[1] + (n[2] + 1) * mean
end

-- Pause a batch that has reached a limit of its own, and let it go on where the calls in flight cost less than was
-- reserved for them, unless an operator holds it.
local function hold_to_limits(batch, now)
  local key = batch_key(batch)
  local b = redis.call('HMGET', key, 'status', 'pause_reason', 'held', 'queued', 'limit_cost', 'limit_error_rate',
    'limit_min_items', 'succeeded', 'failed', 'rate_from_done', 'rate_from_failed')
  if not b[5] and not b[6] or b[1] ~= 'in_progress' and b[1] ~= 'paused' then return end
  local reason
  if b[5] then
    local limit, spent, ahead = tonumber(b[5]), cost_ahead(batch)
    if spent >= limit or ahead > limit then reason = 'max_cost' end
  end
  if b[6] then
    local failed = tonumber(b[9]) - tonumber(b[11] or '0')
    local done = tonumber(b[8]) + tonumber(b[9]) - tonumber(b[10] or '0')
    -- 0.29 * 100 is a little less than 29 here, and a batch may fail at its very rate.
    local is_over = failed - tonumber(b[6]) * done > 1e-9
    if is_over and done >= tonumber(b[7] or DEFAULT_MIN_ITEMS) then reason = 'max_error_rate' end
  end
  if b[1] == 'in_progress' and reason and tonumber(b[4]) > 0 then
    redis.call('HSET', key, 'status', 'paused', 'pause_reason', reason, 'paused_at', ms(now))
    redis.call('SADD', 'dj:paused_batches', batch)
  elseif b[1] == 'paused' and b[2] == 'max_cost' and not reason and not b[3] then
    redis.call('HSET', key, 'status', 'in_progress')
    redis.call('HDEL', key, 'pause_reason', 'paused_at')
    redis.call('SREM', 'dj:paused_batches', batch)
    redis.call('SADD', 'dj:releasing', batch)
  end
end

-- Take a job from the worker that holds or runs it, if one does. `f` is the job as it was with that worker.
local function let_go(id, f)
  if not f.owner then return end
  redis.call('SREM', held_key(f.owner), id)
  redis.call('SREM', cancel_key(f.owner), id)
  redis.call('HDEL', job_key(id), 'owner', 'claim')
  if f.status == 'queued' then redis.call('HINCRBY', queue_key(f.queue), 'taken', -1) end
end

local function is_paused(batch)
  return batch ~= '' and redis.call('HGET', batch_key(batch), 'status') == 'paused'
end

-- Keep a job until its batch is resumed. The list may also hold its id from an earlier time; `parked` says that it waits.
local function park(batch, id, now)
  end_flight(id, false, now)
  redis.call('RPUSH', batch_key(batch) .. ':parked', id)
  redis.call('HSET', job_key(id), 'parked', '1')
end

-- Write down that a job has ended. From here on its keys have a lifetime; before, they have none, for a job may wait
-- and run for as long as it takes.
local function close_job(id, f, status, outcome, now)
  local key = job_key(id)
  if f.owner then redis.call('SREM', held_key(f.owner), id) end
  if f.owner and f.cancel then redis.call('SREM', cancel_key(f.owner), id) end
  redis.call('HDEL', key, 'owner', 'claim', 'wait', 'until', 'cancel', 'parked', 'follows', 'followed', 'answer', 'booked', 'so_far')
  if f.batch == '' then
    redis.call('HSET', key, 'status', status, 'ended_at', ms(now))
  else
    local length = redis.call('RPUSH', batch_key(f.batch) .. ':results', id)
    redis.call('HSET', key, 'status', status, 'ended_at', ms(now), 'place', length - 1)
  end
  if f.batch == '' or f.tries then redis.call('ZREM', 'dj:expiring', id) end -- a batch's jobs only once retried by hand
  redis.call('SET', outcome_key(id), outcome, 'PX', f.retention)
  redis.call('PEXPIRE', key, tonumber(f.retention) + tonumber(f.tombstone))
  redis.call('PEXPIRE', key .. ':request', f.retention)
  if f.kept or f.attempt > (f.status == 'running' and 1 or 0) then redis.call('PEXPIRE', key .. ':attempts', f.retention) end
  if f.answered and status == 'succeeded' then redis.call('UNLINK', key .. ':journal') end
  if f.answered and status ~= 'succeeded' then redis.call('PEXPIRE', key .. ':journal', f.retention) end -- for a retry
end

-- End jobs: each outcome is stored once, counted, listed among its batch's results, and announced. `jobs` holds
-- {id, fields, status, outcome, use}; `use` says how it came by its output (see _books.lua); `sums` holds what else is
-- to be counted.
local function end_jobs(jobs, now, sums)
  local batches, books = {}, costs_key(now)
  for _, job in ipairs(jobs) do
    local id, f, status = job[1], job[2], job[3]
    close_job(id, f, status, job[4], now)
    bump_states(sums, f, f.status, status)
    if f.owner and f.status == 'queued' then bump(sums, queue_key(f.queue), 'taken', -1) end
    count_ending(sums, books, f, status, job[5])
    count_unbooked(sums, f, status, job[4])
    if f.batch ~= '' then batches[f.batch] = true end
  end
  add_to_books(sums, now)
  for _, job in ipairs(jobs) do
    if job[2].leads then end_flight(job[1], job[3] == 'succeeded', now) end
  end
  for batch in pairs(batches) do
    hold_to_limits(batch, now)
    end_batch_if_done(batch, now)
  end
  for _, job in ipairs(jobs) do
    redis.call('PUBLISH', outcome_key(job[1]), job[4])
    redis.call('PUBLISH', 'dj:done', job[1])
  end
end

-- What a script did to jobs that only whoever runs it can tell of: rows of id, status now and before, batch, program,
-- variant, model, attempt, first start or '', time. `f` is the job as it was.
local told = {}

local function tell(id, f, status, now)
  told[#told + 1] = {id, status, f.status, f.batch, f.program, f.variant, f.model, tostring(f.attempt), f.started_at or '',
    ms(now)}
end

local function end_job(id, f, status, outcome, now)
  end_jobs({{id, f, status, outcome}}, now, {})
  tell(id, f, status, now)
end

-- Keep an attempt that did not end its job.
local function keep_record(id, f, record)
  redis.call('RPUSH', job_key(id) .. ':attempts', record)
  f.kept = true
end

-- Keep an attempt that was cut short, with the problem that says by what.
local function keep_attempt(id, f, problem, now)
  local key = job_key(id)
  local at = redis.call('HMGET', key, 'attempt_at', 'so_far')
  local record = '{"number":' .. f.attempt .. ',"model":' .. cjson.encode(f.model) .. ',"started_at":' .. at[1]
    .. ',"ended_at":' .. ms(now) .. ',"error":' .. problem .. (at[2] and ',"at_least":' .. at[2] or '') .. '}'
  keep_record(id, f, record)
  -- Nobody knows what it used beyond the calls that were booked.
  local sums = {}
  bump_books(sums, costs_key(now), f, 'lost', 1)
  add_to_books(sums, now)
  if f.batch ~= '' then add(batch_key(f.batch), 'unpriced', 1) end
end

-- Put a running job back among the queued ones; its holder has it no more.
local function put_back(id, f, problem, now)
  keep_attempt(id, f, problem, now)
  add('dj:counted', 'attempts|' .. f.model .. '|recovered', 1)
  redis.call('HSET', job_key(id), 'status', 'queued', 'wait', 'worker_lost')
  let_go(id, f)
  recount(f, 'running', 'queued')
  if f.batch ~= '' then hold_to_limits(f.batch, now) end
  tell(id, f, 'queued', now)
end

-- The fields most transitions need, by name; nil where the job is not known.
local function fields(id)
  local v = redis.call('HMGET', job_key(id), 'status', 'queue', 'batch', 'priority', 'retention', 'tombstone',
    'attempt', 'owner', 'expires_at', 'max_attempts', 'tries', 'model', 'variant', 'program', 'client', 'started_at',
    'leads', 'answered', 'answer', 'attempt_at', 'booked', 'cancel', 'followed')
  if not v[1] then return nil end
  return {status = v[1], queue = v[2], batch = v[3] or '', priority = v[4], retention = v[5], tombstone = v[6],
    attempt = tonumber(v[7] or '0'), owner = v[8], expires_at = tonumber(v[9]), max_attempts = tonumber(v[10]),
    tries = v[11], model = v[12] or '', variant = v[13] or '', program = v[14] or '', client = v[15] or 'default',
    started_at = v[16], leads = v[17], answered = v[18], answer = v[19] or '', attempt_at = v[20],
    booked = tonumber(v[21] or '0'), cancel = v[22], followed = tonumber(v[23] or '0')}
end

-- Whether the worker runs this attempt of the job, and nobody another by now.
local function runs(f, worker, token)
  return f and f.status == 'running' and f.owner == worker and f.attempt == tonumber(token)
end

-- What a worker says of itself; nothing where that cannot be read, for one such worker must not stop the others.
local function described_worker(worker)
  local is_json, described = pcall(cjson.decode, redis.call('GET', 'dj:worker:' .. worker) or '{}')
  return is_json and type(described) == 'table' and described or {}
end

-- Threads of the live workers of a queue, as their descriptions say.
local function slots(queue, now)
  local sum = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue_key(queue) .. ':workers', now, '+inf')) do
    sum = sum + (tonumber(described_worker(worker).concurrency) or 0)
  end
  return sum
end

-- What Celery's result backend stores for a job that never ran to an end of its own.
local function unstarted_outcome(id, state, kind, problem, now)
  local detail = cjson.decode(problem).detail
  return '{"status":"' .. state .. '","result":{"exc_type":"' .. kind .. '","exc_message":[' .. cjson.encode(detail)
    .. '],"exc_module":"dspy_jobs.errors"},"traceback":null,"children":[],"date_done":null,"task_id":"' .. id
    .. '","problem":' .. problem .. '}'
end

-- Cancel a job: at once if it is queued, by asking its worker if it runs.
local function stop_job(id, f, problem, now)
  if f.status == 'queued' then
    stop_waiting(id, f)
    redis.call('ZREM', 'dj:delayed', id)
    redis.call('ZADD', 'dj:jobs', 0, id) -- it may not have been sent yet, and then is not listed
    end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', problem, now), now)
  elseif f.status == 'running' then
    redis.call('HSET', job_key(id), 'cancel', '1')
    redis.call('SADD', cancel_key(f.owner), id)
  end
end
