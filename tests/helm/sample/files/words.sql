CREATE TABLE "words" ("word" text); -- {{ not a template }}
