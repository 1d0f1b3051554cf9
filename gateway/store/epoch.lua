#!lua flags=allow-oom
-- epoch: begin a new history, if nobody else did first.
--   KEYS[1] meta HASH   ARGV[1] the epoch that was lost   [2] the new one
--   returns the epoch that holds now
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or epoch == ARGV[1] then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
  return ARGV[2]
end
return epoch
