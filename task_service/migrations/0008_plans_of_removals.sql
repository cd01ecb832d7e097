-- The service's sessions have plan_cache_mode = force_generic_plan, which spares the planning of lists and writes. A generic plan expects a third of
-- the rows behind a comparison of times and a tenth behind LIMIT, and reads whole tables. So the functions that remove rows plan with their parameters.
ALTER FUNCTION task.sweep(interval, interval, integer) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION task.remove_rows(uuid, integer) SET plan_cache_mode = force_custom_plan;
