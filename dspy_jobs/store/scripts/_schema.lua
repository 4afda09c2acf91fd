-- Put before every script: keys, the clock, and the few moves that all transitions are made of.
-- Keys and their lifetimes are listed in dspy_jobs/names.py. Times are milliseconds since 1970.

local TERMINAL = {succeeded = true, failed = true, canceled = true, expired = true}

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

-- A Celery message (task protocol 2) for one or more jobs. `template` has the slots @ID@, @ARGS@ and @TAG@.
-- The tag ends in the time it was sent, or in 0 if it went to the front of the queue.
local function message(template, ids, sent)
  local quoted = {}
  for i, id in ipairs(ids) do quoted[i] = '\\"' .. id .. '\\"' end
  local name = ids[1]
  if #ids > 1 then name = 'chunk-' .. #ids .. '-' .. ids[1] end
  local tag = redis.call('HINCRBY', 'dj:totals', 'messages', 1)
  local filled = template:gsub('@ID@', name):gsub('@TAG@', tag .. '@' .. sent):gsub('@ARGS@', table.concat(quoted, ','))
  return filled
end

-- Send jobs to the workers: they wait from now on, and a message says so. `front` lets them be next.
local function send(template, queue, step, ids, now, front)
  if #ids == 0 then return end
  local waiting = {}
  for _, id in ipairs(ids) do
    waiting[#waiting + 1] = now
    waiting[#waiting + 1] = id
  end
  redis.call('ZADD', waiting_key(queue, step), unpack(waiting))
  redis.call(front and 'RPUSH' or 'LPUSH', queue_list(queue, step), message(template, ids, front and '0' or ms(now)))
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
  groups[name] = groups[name] or {queue = f.queue, priority = f.priority, ids = {}}
  table.insert(groups[name].ids, id)
end

local function send_groups(template, groups, size, now, front)
  for _, group in pairs(groups) do
    for at = 1, #group.ids, size do
      local chunk = {unpack(group.ids, at, math.min(at + size - 1, #group.ids))}
      send(template, group.queue, group.priority, chunk, now, front)
    end
  end
end

-- The strongest reason why a queue is closed now, and until when (0: until somebody opens it); nil if it is open.
-- An open circuit whose time is over is half-open: still closed, with until in the past.
local function gate_of(queue, now)
  local v = redis.call('HMGET', queue_key(queue) .. ':gates', 'paused', 'budget_exhausted', 'circuit_open',
    'rate_limited')
  for i, reason in ipairs({'paused', 'budget_exhausted', 'circuit_open', 'rate_limited'}) do
    local ends = tonumber(v[i])
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

-- Move one job from one state to another in every count that knows it.
local function recount(queue, batch, from, to)
  if from == to then return end
  local numbers, totals = queue_key(queue), 'dj:totals'
  if from == 'queued' or from == 'running' then
    redis.call('HINCRBY', numbers, from, -1)
    redis.call('HINCRBY', totals, from, -1)
  end
  if to == 'queued' or to == 'running' then
    redis.call('HINCRBY', numbers, to, 1)
    redis.call('HINCRBY', totals, to, 1)
  end
  if batch ~= '' then
    redis.call('HINCRBY', batch_key(batch), from, -1)
    redis.call('HINCRBY', batch_key(batch), to, 1)
  end
end

-- Add what an attempt used to its batch: input tokens, output tokens, calls, cost (nano-dollars; '' is unknown).
local function add_spent(batch, spent)
  if batch == '' then return end
  for i, name in ipairs({'input_tokens', 'output_tokens', 'calls', 'cost'}) do
    -- A sum beyond 64 bits must not stop a transition half way: it stays as it is, and the cost becomes unknown.
    local sum = spent[i] ~= '' and spent[i] ~= '0' and redis.pcall('HINCRBY', batch_key(batch), name, spent[i])
    if type(sum) == 'table' then spent[4] = '' end
  end
  if spent[4] == '' then redis.call('HINCRBY', batch_key(batch), 'unpriced', 1) end
end

-- Move a queued or running job to another model and its queue; remembers the models it has left.
local function fall_back(id, f, model)
  local key = job_key(id)
  local left = redis.call('HMGET', key, 'fallen', 'model')
  redis.call('HSET', key, 'model', model, 'queue', 'dspy.' .. model, 'tries', 0, 'limited', 0,
    'fallen', (left[1] and left[1] .. ',' or '') .. left[2])
  for _, name in ipairs({'queued', 'running'}) do
    if f.status == name then
      redis.call('HINCRBY', queue_key(f.queue), name, -1)
      redis.call('HINCRBY', queue_key('dspy.' .. model), name, 1)
    end
  end
  f.queue = 'dspy.' .. model
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
  redis.call('ZREM', 'dj:expiring', batch)
  redis.call('PUBLISH', 'dj:done', batch)
end

-- Take a job from the worker that holds or runs it, if one does.
local function let_go(id, owner)
  if not owner then return end
  redis.call('SREM', held_key(owner), id)
  redis.call('SREM', cancel_key(owner), id)
  redis.call('HDEL', job_key(id), 'owner', 'claim')
end

local function is_paused(batch)
  return batch ~= '' and redis.call('HGET', batch_key(batch), 'status') == 'paused'
end

-- Keep a job until its batch is resumed. The list may also hold its id from an earlier time; `parked` says that it waits.
local function park(batch, id)
  redis.call('RPUSH', batch_key(batch) .. ':parked', id)
  redis.call('HSET', job_key(id), 'parked', '1')
end

-- End a job: its outcome is stored once, announced, counted, and listed among its batch's results. From here on its
-- keys have a lifetime; before, they have none, for a job may wait and run for as long as it takes.
-- `f` holds the job's fields.
local function end_job(id, f, status, outcome, now)
  local key = job_key(id)
  let_go(id, f.owner)
  redis.call('HSET', key, 'status', status, 'ended_at', ms(now))
  redis.call('HDEL', key, 'wait', 'until', 'cancel', 'parked')
  if f.batch == '' or f.tries then redis.call('ZREM', 'dj:expiring', id) end -- a batch's jobs only once retried by hand
  redis.call('SET', outcome_key(id), outcome, 'PX', f.retention)
  redis.call('PEXPIRE', key, tonumber(f.retention) + tonumber(f.tombstone))
  redis.call('PEXPIRE', key .. ':request', f.retention)
  redis.call('PEXPIRE', key .. ':attempts', f.retention)
  recount(f.queue, f.batch, f.status, status)
  if f.batch ~= '' then
    local length = redis.call('RPUSH', batch_key(f.batch) .. ':results', id)
    redis.call('HSET', key, 'place', length - 1)
    end_batch_if_done(f.batch, now)
  end
  redis.call('PUBLISH', outcome_key(id), outcome)
  redis.call('PUBLISH', 'dj:done', id)
end

-- Keep an attempt that was cut short, with the problem that says by what.
local function keep_attempt(id, f, problem, now)
  local key = job_key(id)
  local at = redis.call('HMGET', key, 'attempt_at', 'model')
  local record = '{"number":' .. f.attempt .. ',"model":' .. cjson.encode(at[2]) .. ',"started_at":' .. at[1]
    .. ',"ended_at":' .. ms(now) .. ',"error":' .. problem .. '}'
  redis.call('RPUSH', key .. ':attempts', record)
  add_spent(f.batch, {'0', '0', '0', ''}) -- nobody knows what it used
end

-- Put a running job back among the queued ones; its holder has it no more.
local function put_back(id, f, problem, now)
  keep_attempt(id, f, problem, now)
  redis.call('HSET', job_key(id), 'status', 'queued', 'wait', 'worker_lost')
  let_go(id, f.owner)
  recount(f.queue, f.batch, 'running', 'queued')
end

-- The fields most transitions need, by name; nil where the job is not known.
local function fields(id)
  local v = redis.call('HMGET', job_key(id), 'status', 'queue', 'batch', 'priority', 'retention', 'tombstone',
    'attempt', 'owner', 'expires_at', 'max_attempts', 'tries')
  if not v[1] then return nil end
  return {status = v[1], queue = v[2], batch = v[3] or '', priority = v[4], retention = v[5], tombstone = v[6],
    attempt = tonumber(v[7] or '0'), owner = v[8], expires_at = tonumber(v[9]), max_attempts = tonumber(v[10]), tries = v[11]}
end

-- Whether the worker runs this attempt of the job, and nobody another by now.
local function runs(f, worker, token)
  return f and f.status == 'running' and f.owner == worker and f.attempt == tonumber(token)
end

-- Threads of the live workers of a queue, as their descriptions say.
local function slots(queue, now)
  local sum = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue_key(queue) .. ':workers', now, '+inf')) do
    local described = redis.call('GET', 'dj:worker:' .. worker)
    sum = sum + (described and cjson.decode(described).concurrency or 0)
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
local function cancel(id, f, problem, now)
  if f.status == 'queued' then
    redis.call('ZREM', waiting_key(f.queue, f.priority), id)
    redis.call('ZREM', 'dj:delayed', id)
    redis.call('ZADD', 'dj:jobs', 0, id) -- it may not have been sent yet, and then is not listed
    end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', problem, now), now)
  elseif f.status == 'running' then
    redis.call('HSET', job_key(id), 'cancel', '1')
    redis.call('SADD', cancel_key(f.owner), id)
  end
end
