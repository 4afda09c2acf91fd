-- Give taken jobs outputs that were made before, by the cache or by a job they followed: they succeed without having
-- run. Answers for each: finished | stale | parked | expired | paused (its queue is; it stays taken).
-- ARGV: now, worker, expired problem, then for each job: id, outcome, 'hit' or 'coalesced', nano-dollars saved or ''.
local now, worker, answers, ended = clock(ARGV[1]), ARGV[2], {}, {}
local paused_batches, paused_queues, seen = {}, {}, {}

local function answer_of(id, f)
  if not f or f.status ~= 'queued' or f.owner ~= worker or seen[id] then return 'stale' end
  if paused_batches[f.batch] == nil then paused_batches[f.batch] = is_paused(f.batch) end
  if paused_batches[f.batch] then return 'parked' end
  if paused_queues[f.queue] == nil then paused_queues[f.queue] = gate_of(f.queue, now) == 'paused' end
  if paused_queues[f.queue] then return 'paused' end
  return f.expires_at <= now and not f.started_at and 'expired' or 'finished'
end

for i = 4, #ARGV, 4 do
  local id = ARGV[i]
  local f = fields(id)
  local answer = answer_of(id, f)
  seen[id] = true
  if answer == 'parked' then
    let_go(id, f)
    park(f.batch, id, now)
  elseif answer == 'expired' then
    ended[#ended + 1] = {id, f, 'expired', unstarted_outcome(id, 'FAILURE', 'JobExpired', ARGV[3], now)}
  elseif answer == 'finished' then
    redis.call('HSET', job_key(id), 'attempt', f.attempt + 1, 'attempt_at', ms(now), 'started_at', f.started_at or ms(now))
    ended[#ended + 1] = {id, f, 'succeeded', ARGV[i + 1], {how = ARGV[i + 2], saved = ARGV[i + 3]}}
  end
  answers[#answers + 1] = answer
end
end_jobs(ended, now, {})
return answers
