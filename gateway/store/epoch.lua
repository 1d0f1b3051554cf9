#!lua flags=allow-oom
-- epoch: begin a new history, unless another node did.
--   KEYS[1] meta HASH   ARGV[1] the epoch that was lost   [2] the new one
--   ARGV[3] session numbers up to this one were given: they go on after it
--   returns the epoch that holds now
if tonumber(redis.call('HGET', KEYS[1], 'number') or '0') < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'number', ARGV[3])
end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or epoch == ARGV[1] then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
  return ARGV[2]
end
return epoch
