-- Send a taken job that has not started to another model, because its own model's circuit is open.
-- ARGV: now, worker, id, model.
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not f or f.status ~= 'queued' or f.owner ~= worker then return 0 end
end_flight(id, false, now)
let_go(id, f)
fall_back(id, f, ARGV[4])
send_job(id, f, now)
return 1
