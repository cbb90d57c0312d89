-- Why a run failed, in a short text for lists: the whole of it is in the document.
ALTER TABLE run ADD COLUMN failure TEXT;
