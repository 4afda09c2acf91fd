-- Give taken jobs outputs that were made before, by the cache or by a job they followed: they succeed without having
-- run. Answers for each: finished | stale | parked | expired | paused (its queue is; it stays taken).
-- ARGV: now, worker, expired problem, then for each job: id, outcome, 'hit' or 'coalesced', nano-dollars saved or ''.
local now, worker, answers = clock(ARGV[1]), ARGV[2], {}
for i = 4, #ARGV, 4 do
  local id = ARGV[i]
  local f, key, answer = fields(id), job_key(id), 'finished'
  if not f or f.status ~= 'queued' or f.owner ~= worker then
    answer = 'stale'
  elseif is_paused(f.batch) then
    let_go(id, worker)
    park(f.batch, id, now)
    answer = 'parked'
  elseif gate_of(f.queue, now) == 'paused' then
    answer = 'paused'
  elseif f.expires_at <= now and redis.call('HEXISTS', key, 'started_at') == 0 then
    end_job(id, f, 'expired', unstarted_outcome(id, 'FAILURE', 'JobExpired', ARGV[3], now), now)
    answer = 'expired'
  else
    redis.call('HSET', key, 'attempt', f.attempt + 1, 'attempt_at', ms(now))
    redis.call('HSETNX', key, 'started_at', ms(now))
    end_job(id, f, 'succeeded', ARGV[i + 1], now, {how = ARGV[i + 2], saved = ARGV[i + 3]})
  end
  answers[#answers + 1] = answer
end
return answers
