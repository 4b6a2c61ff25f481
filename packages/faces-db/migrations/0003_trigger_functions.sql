-- A trigger fires whether or not its writer may execute the function; the right is only needed to create one. Without
-- it nobody else can hang these functions, which run with their owner's rights, on a table of their own and so append
-- to feeds that they may not write.
REVOKE EXECUTE ON FUNCTION faces.on_list_face_change(), faces.on_descriptor_change() FROM PUBLIC;
